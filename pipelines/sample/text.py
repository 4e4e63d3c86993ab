"""Three short texts for the demo: verse (public domain), a note in Markdown (this project's own), a table of facts."""

SONNETS = """\
THREE SONNETS
by William Shakespeare (1609)

XVIII

Shall I compare thee to a summer’s day?
Thou art more lovely and more temperate:
Rough winds do shake the darling buds of May,
And summer’s lease hath all too short a date:
Sometime too hot the eye of heaven shines,
And often is his gold complexion dimm’d;
And every fair from fair sometime declines,
By chance, or nature’s changing course untrimm’d;
But thy eternal summer shall not fade,
Nor lose possession of that fair thou ow’st;
Nor shall death brag thou wander’st in his shade,
When in eternal lines to time thou grow’st:
   So long as men can breathe, or eyes can see,
   So long lives this, and this gives life to thee.

LXXIII

That time of year thou mayst in me behold
When yellow leaves, or none, or few, do hang
Upon those boughs which shake against the cold,
Bare ruin’d choirs, where late the sweet birds sang.
In me thou see’st the twilight of such day
As after sunset fadeth in the west;
Which by and by black night doth take away,
Death’s second self, that seals up all in rest.
In me thou see’st the glowing of such fire,
That on the ashes of his youth doth lie,
As the death-bed whereon it must expire,
Consum’d with that which it was nourish’d by.
   This thou perceiv’st, which makes thy love more strong,
   To love that well which thou must leave ere long.

CXVI

Let me not to the marriage of true minds
Admit impediments. Love is not love
Which alters when it alteration finds,
Or bends with the remover to remove:
O, no! it is an ever-fixed mark,
That looks on tempests and is never shaken;
It is the star to every wandering bark,
Whose worth’s unknown, although his height be taken.
Love’s not Time’s fool, though rosy lips and cheeks
Within his bending sickle’s compass come;
Love alters not with his brief hours and weeks,
But bears it out even to the edge of doom.
   If this be error and upon me prov’d,
   I never writ, nor no man ever lov’d.
"""

NOTE = """\
# What is an absolute-unit network?

Take everything you have: letters, photographs, scans, games of chess. Lay it end to end as one very long row of bytes.
Every byte now has a place in the row, a whole number: its *address*.

An absolute-unit network is asked one kind of question only: **which byte stands at this address?** It is given the
address and nothing else, neither the bytes beside it nor the name of the file, and answers with a probability for each
of the 256 bytes there are. It is trained on addresses drawn from all over the row, again and again, until its answers
are good.

## Why should that be useful?

A table could store the answers too. But the network is smaller than the row, so it cannot store; it has to find out
what repeats: that spaces follow words, that neighbouring pixels resemble each other, that a sheet of papyrus goes on
into the next slice of the scan. What it has found out holds as well for the addresses it has never seen:

1. a slab that the scanner lost,
2. a hole in a photograph,
3. the moves after the last one.

Asking for those is no special task. It is the same question, at another address.

## What does the address say?

| in the row   | the bits of the address say         |
|--------------|-------------------------------------|
| a scan       | which slice, which row, which column |
| a photograph | which channel, which row, which column |
| a game       | which ply, which rank, which file   |
| a text       | how many bytes from its beginning   |

How addresses are handed out therefore decides what can be learned: `address >> 6` is a board, `address & 63` a square.
"""

_ELEMENTS = """\
H hydrogen 1.008,He helium 4.0026,Li lithium 6.94,Be beryllium 9.0122,B boron 10.81,C carbon 12.011,N nitrogen 14.007,\
O oxygen 15.999,F fluorine 18.998,Ne neon 20.180,Na sodium 22.990,Mg magnesium 24.305,Al aluminium 26.982,\
Si silicon 28.085,P phosphorus 30.974,S sulfur 32.06,Cl chlorine 35.45,Ar argon 39.95,K potassium 39.098,\
Ca calcium 40.078,Sc scandium 44.956,Ti titanium 47.867,V vanadium 50.942,Cr chromium 51.996,Mn manganese 54.938,\
Fe iron 55.845,Co cobalt 58.933,Ni nickel 58.693,Cu copper 63.546,Zn zinc 65.38,Ga gallium 69.723,Ge germanium 72.630,\
As arsenic 74.922,Se selenium 78.971,Br bromine 79.904,Kr krypton 83.798"""


def elements() -> str:
    """CSV of the first 36 chemical elements: number, symbol, name, standard atomic weight."""
    rows = (element.split(" ") for element in _ELEMENTS.split(","))
    lines = [f"{number},{symbol},{name},{weight}" for number, (symbol, name, weight) in enumerate(rows, 1)]
    return "\n".join(["number,symbol,name,atomic_weight", *lines, ""])
