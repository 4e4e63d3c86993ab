"""The path of one byte, from a file to a file: one voxel followed through every stage (docs/corpus-format.md)."""

import gzip
import math

import nibabel
import numpy as np
import torch
from torch.nn import functional

from aunn_data import digits, sampling
from aunn_data.corpus import Corpus
from aunn_data.registry import Holdout
from aunn_model.reconstruction import predict
from aunn_model.training import Settings, step
from pipelines import runs
from pipelines.batches import Batches
from pipelines.ingest import ingest
from pipelines.reconstruct import reconstruct
from pipelines.restored import write
from pipelines.runs import Run
from pipelines.scans import nifti
from pipelines.source import Source
from pipelines.targets import holdout_targets

VOXEL = (3, 5, 2)  # x, y, z as NIfTI has it


def test_one_byte_from_scan_to_scan(tmp_path):
    """Read, placed, written unseen, committed, drawn, embedded, judged in bits, predicted, decoded, written again."""
    stored = np.random.default_rng(0).integers(-500, 600, (6, 7, 4)).astype("<i2")
    image = nibabel.Nifti1Image(stored, np.diag([2.0, 2.0, 2.5, 1.0]))
    image.header.set_slope_inter(0.5, 10)
    path = tmp_path / "scan.nii.gz"
    nibabel.save(image, path)

    [record] = nifti.read(Source(path, "scan.nii.gz"))
    assert record.elements[VOXEL[::-1]] == stored[VOXEL]  # stored, not scaled

    corpus = Corpus.create(tmp_path / "corpus", 32)
    ingest([path], corpus)
    entry = corpus.entries.named("scan.nii.gz")
    geometry = entry.geometry
    assert (geometry.slope, geometry.intercept) == (0.5, 10)
    x, y, z = VOXEL
    address = entry.payload_start + (z << 6 | y << 3 | x)  # pitches 8, 8: the bit fields are the coordinates
    assert geometry.locate(address - entry.payload_start) == (VOXEL[::-1], 0)
    byte = int(corpus.read(address, address + 1)[0])
    assert byte == (int(stored[VOXEL]) - int(stored.min())) // geometry.place_values[0]

    settings = Settings(width=16, layers=2, batch=64, steps=1, precision="float32")
    batches = Batches(corpus, settings, torch.device("cpu"))
    steps = -(-batches.sampler.size // settings.batch)
    drawn = np.concatenate([sampling.batch(corpus, settings.seed, s, settings.batch) for s in range(steps)])
    assert address in drawn

    state = runs.fresh(corpus, settings)
    addresses_B, bytes_B = batches(0)
    logits_BV = state.network(addresses_B)
    bits_per_byte = functional.cross_entropy(logits_BV, bytes_B).item() / math.log(2)
    assert 0.5 < bits_per_byte / 8 < 2  # before training: about ignorance
    step(state, settings, addresses_B, bytes_B)

    corpus.add_holdouts([Holdout("one", entry.record, tuple((i, i + 1) for i in VOXEL[::-1]))])
    left = Batches(corpus, settings, torch.device("cpu")).sampler
    assert address not in {int(a) for a in left.addresses(np.arange(steps))}
    described = Run(str(corpus.path), corpus.version, 32, (("one", entry.record, "z=2:3,y=5:6,x=3:4"),), settings)
    [target] = holdout_targets(corpus, "one")
    found = reconstruct(state.network, corpus, described, target)
    asked = np.array([address, address + geometry.plane_extent])
    expected_P = predict(state.network, asked).expected_N
    value = digits.expected_elements_of(expected_P[:, None], stored.dtype, geometry.offset, geometry.place_values)[0]
    assert found.filled[VOXEL[::-1]] == value

    written = write(found, tmp_path / "out")[0]
    back = nibabel.load(written)
    assert back.header.binaryblock == image.header.binaryblock or (back.affine == image.affine).all()
    again = np.asarray(back.dataobj.get_unscaled())
    assert again[VOXEL] == value
    again[VOXEL] = stored[VOXEL]
    assert (again == stored).all()
    assert back.get_fdata()[VOXEL] == 0.5 * float(value) + 10  # slope and intercept: here and only here
    assert gzip.decompress(written.read_bytes())[:4] == gzip.decompress(path.read_bytes())[:4]
    assert torch.is_tensor(logits_BV)
