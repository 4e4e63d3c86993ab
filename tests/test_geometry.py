"""Geometry, digits and payload: element <-> offset <-> bytes, for every layout and dtype."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from aunn_data import digits, payload, spans
from aunn_data.errors import RequestError
from aunn_data.geometry import LAYOUTS, Geometry, fitted, slices

DTYPES = ["|u1", "|b1", "|i1", "<i2", ">i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", ">f4", "<f8"]
layouts = st.sampled_from(LAYOUTS)


@st.composite
def volumes(draw):
    """(elements, missing or None, fitted geometry) of up to four axes, any dtype and layout."""
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, max_side=7))
    elements = draw(hnp.arrays(np.dtype(draw(st.sampled_from(DTYPES))), shape))
    missing = draw(st.none() | hnp.arrays(np.bool_, shape))
    axes = ("t", "z", "y", "x")[-len(shape) :]
    return elements, missing, fitted(Geometry(elements.dtype.str, axes, shape, draw(layouts)), elements, missing)


@st.composite
def regions(draw, shape):
    return tuple(
        (start, draw(st.integers(start + 1, size))) for size in shape for start in [draw(st.integers(0, size - 1))]
    )


def stored(elements, missing, geometry):
    """A whole payload as bytes, written in blocks of 16 addresses."""
    out = np.zeros(geometry.extent, np.uint8)
    for start, stop in payload.blocks(geometry, 16):
        block = payload.encode(geometry, elements, start, stop, missing)
        if block is not None:
            out[start:stop] = block
    return out


@given(volumes(), st.data())
@settings(deadline=None, max_examples=300)
def test_any_region_decodes_to_the_bits_that_were_encoded(volume, data):
    """Whatever the dtype, layout, NaN bits and region, decode gives back the very bits that went in."""
    elements, missing, geometry = volume
    region = data.draw(regions(geometry.shape))
    whole = stored(elements, missing, geometry)
    got = payload.decode(geometry, lambda a, b: whole[a:b], region)
    if missing is not None:
        got = payload.restore_missing(geometry, got, missing[slices(region)])
    assert got.tobytes() == np.ascontiguousarray(elements[slices(region)]).tobytes()


@given(volumes(), st.data())
@settings(deadline=None)
def test_spans_of_a_region_are_exactly_the_addresses_that_locate_into_it(volume, data):
    """The spans of a region hold all offsets whose located element lies in the region, in every plane, and no other."""
    _, _, geometry = volume
    region = data.draw(regions(geometry.shape))
    got = set(spans.addresses(geometry.spans(region)).tolist())
    expected = set()
    for offset in range(min(geometry.extent, 5000)):
        found = geometry.locate(offset)
        if found and all(a <= i < b for i, (a, b) in zip(found[0], region, strict=True)):
            expected.add(offset)
    assert {o for o in got if o < 5000} == expected


@given(volumes())
@settings(deadline=None)
def test_every_byte_of_an_element_has_one_offset(volume):
    """Locating every offset of a payload meets each (element, plane) exactly once."""
    _, _, geometry = volume
    if geometry.extent > 20_000:
        return
    met = [found for offset in range(geometry.extent) if (found := geometry.locate(offset))]
    assert len(met) == len(set(met)) == geometry.payload_bytes


def test_padded_bit_fields_are_the_coordinates():
    """In a padded payload x has the lowest bits, then y, then z; the digit plane has the highest."""
    geometry = Geometry("<i2", ("z", "y", "x"), (24, 96, 128), place_values=(5, 1))
    assert geometry.strides == (1 << 14, 1 << 7, 1)
    assert geometry.extent == 2 * 32 * 128 * 128
    assert geometry.locate(1 << 19 | 3 << 14 | 95 << 7 | 127) == ((3, 95, 127), 1)
    assert geometry.locate(96 << 7) is None


def test_morton_interleaves_from_the_lowest_bit():
    """Z-order of a 4x4 image: the textbook sequence 0 1 4 5 / 2 3 6 7 / 8 9 12 13 / 10 11 14 15."""
    geometry = Geometry("|u1", ("y", "x"), (4, 4), "morton")
    assert geometry.offsets(geometry.whole).tolist() == [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]


def test_sixteen_bit_values_become_quotient_and_remainder():
    """0…1162 has r = ceil(1163 / 256) = 5: planes value // 5 and value % 5."""
    values = np.arange(1163, dtype="<i2")
    offset, place_values, _ = digits.fit(values.dtype, values)
    assert (offset, place_values) == (0, (5, 1))
    planes = digits.digits_of(values, offset, place_values)
    assert (planes[0] == values // 5).all()
    assert (planes[1] == values % 5).all()


@given(st.integers(1, 2**64))
def test_place_values_write_any_count_in_the_fewest_bytes(count):
    """The largest value's digits all fit a byte, and one digit fewer would not do."""
    place_values = digits.place_values_for(count)
    rest = count - 1
    for place_value in place_values:
        digit, rest = divmod(rest, place_value)
        assert digit < 256
    assert rest == 0
    assert len(place_values) == max(1, -(-(count - 1).bit_length() // 8))


@given(hnp.arrays(np.float32, 20, elements=st.floats(width=32)))
def test_ordered_integers_sort_as_the_floats_do(values):
    """The integers of floats come in the floats' order, -0.0 before 0.0, and give the bits back."""
    values = values[~np.isnan(values)]
    order = np.argsort(digits.ordered(values), kind="stable")
    assert (values[order][1:] >= values[order][:-1]).all()
    assert digits.unordered(digits.ordered(values), values.dtype).tobytes() == values.tobytes()


@given(volumes())
@settings(deadline=None)
def test_the_expectation_of_certain_digits_is_the_element(volume):
    """Expected digits that are whole numbers decode to the element itself (to float64's 53 bits)."""
    elements, _, geometry = volume
    geometry = fitted(geometry, elements)
    if geometry.planes > 6:
        return
    dtype = np.dtype(geometry.dtype)
    planes = digits.digits_of(elements, geometry.offset, geometry.place_values)
    got = digits.expected_elements_of(planes.astype(np.float64), dtype, geometry.offset, geometry.place_values)
    assert got.tobytes() == elements.tobytes()


def test_missing_elements_of_one_value_stay_out_of_the_range():
    """NaN does not stretch the range of floats: the digits are those of the finite values alone, NaN comes back."""
    values = np.array([1.0, 1.5, np.nan, 2.0], "<f4")
    with_nan = fitted(Geometry("<f4", ("x",), (4,)), values, np.isnan(values))
    assert with_nan.place_values == fitted(Geometry("<f4", ("x",), (3,)), values[[0, 1, 3]]).place_values
    assert np.isnan(digits.value_of(with_nan.missing_value, np.dtype("<f4")))


@pytest.mark.parametrize("text", ["w=0:1", "z=1", "z=0:9", "z=3:3", "z=-1:2", "z:0:1", "", "z=2:1", "z=0:1,,y=:"])
def test_a_region_outside_the_record_is_refused_with_its_axes(text):
    """An unknown axis, an empty or outside range and bad syntax raise RequestError; it names the axes and sizes."""
    geometry = Geometry("|u1", ("z", "y"), (1, 4))
    with pytest.raises(RequestError, match=r"z=1, y=4"):
        geometry.parse_region(text, "holdout h")


@given(st.data())
def test_a_region_is_parsed_back_from_its_text(data):
    """format_region and parse_region are inverse; an axis left out is whole; one index is a range of one."""
    geometry = Geometry("|u1", ("z", "y", "x"), (5, 6, 7))
    region = data.draw(regions(geometry.shape))
    assert geometry.parse_region(geometry.format_region(region), "") == region
    assert geometry.parse_region("y=2", "") == ((0, 5), (2, 3), (0, 7))
    assert geometry.parse_region("z=2:,x=:3", "") == ((2, 5), (0, 6), (0, 3))


def test_geometry_survives_json():
    """A geometry comes back equal from its JSON fields, and defaults are left out of them."""
    geometry = Geometry("<f4", ("y", "x"), (3, 5), "morton", 7, (300, 2, 1), 5, (0.5, 0.5), ("mm", "mm"), 2.0, 1.0)
    assert Geometry.from_json(geometry.to_json()) == geometry
    assert set(Geometry("|u1", ("x",), (4,)).to_json()) == {"dtype", "axes", "shape", "layout"}
