"""The torch form of the image models: equal to the compiled one, differentiable, of the device and dtype it is given."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from probegym.physics import differentiable, specimens
from probegym.physics.differentiable import TorchImageFormer, TorchRonchigramFormer
from probegym.physics.image_formation import ImageFormer
from probegym.physics.optics import ABERRATIONS
from probegym.physics.ronchigram import RonchigramFormer

NAMES = ABERRATIONS[:12]
BOX = np.array([10, 10, 10, 900, 900, 300, 300, 500, 300, 300, 300, 300]) * 1e-9
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
PIXEL = 0.4e-10


def image_former(name: str = "graphene-si", detector: str = "haadf", cutoff: float | None = None, **options) -> ImageFormer:
    specimen = specimens.load(name)
    return ImageFormer(specimen.tensors[detector], cutoff or specimen.semiangle_cutoff, NAMES, **options)


def ronchigram_former(name: str, cutoff: float = 0.04, pixels: int = 42) -> RonchigramFormer:
    film = specimens.load(name)
    return RonchigramFormer(film.films[:3], film.energy, film.extent[0], cutoff, pixels, NAMES, film.slice_thickness)


def scans(lanes: int, rows: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Aberrations of the box, and line starts of a scan that drifts and shakes."""
    rng = np.random.default_rng(lanes)
    start = rng.uniform(0, 1e-8, (lanes, 2, 1)) + rng.normal(0, 5e-12, (lanes, 2, rows))
    return rng.uniform(-1, 1, (lanes, len(NAMES))) * BOX, start[:, 0], start[:, 1] + np.arange(rows) * PIXEL


def tensors(*arrays, device="cpu", dtype=torch.float64) -> list[torch.Tensor]:
    return [torch.as_tensor(array, device=device, dtype=dtype) for array in arrays]


def error(one, other) -> float:
    """Largest root-mean-square difference of a frame, in units of its range."""
    one, other = np.asarray(one, float), np.asarray(other, float)
    return float((np.sqrt(((one - other) ** 2).mean((1, 2))) / np.ptp(other, axis=(1, 2))).max())


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("name", "detector", "options"),
    [
        ("graphene-si", "haadf", {}),
        ("graphene-si", "maadf", {"source_size": 0.3e-10, "focal_spread": 3e-9, "soft": True}),
        ("srtio3", "abf", {"cutoff": 0.02, "focal_spread": 2e-9}),
    ],
)
def test_images_equal_the_compiled_ones(name, detector, options, dtype, device):
    former, state = image_former(name, detector, **options), scans(3)
    torch_former = TorchImageFormer(former, device, dtype)
    images = torch_former.images(*tensors(*state, device=device, dtype=dtype), 20, PIXEL)
    assert images.dtype == dtype and images.device.type == device and images.shape == (3, 24, 20)
    assert error(images.cpu(), former.images(*state, 20, PIXEL)) <= 1e-5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["film-carbon", "film-gold-on-carbon"])
def test_ronchigrams_equal_the_compiled_ones(name, dtype, device):
    former, rng = ronchigram_former(name), np.random.default_rng(1)
    coefficients, positions = rng.uniform(-1, 1, (8, len(NAMES))) * BOX, rng.uniform(0, 1e-7, (8, 2))
    coefficients[:, 0] += 30e-9
    variants, orientations = rng.integers(0, 3, 8), np.arange(8)
    which = tensors(variants, orientations, device=device, dtype=torch.int64)
    frames = TorchRonchigramFormer(former, device, dtype).frames(*tensors(coefficients, positions, device=device, dtype=dtype), *which)
    assert frames.dtype == dtype and frames.device.type == device and frames.shape == (8, 42, 42)
    assert error(frames.cpu(), former.frames(coefficients, positions, variants, orientations)) <= 1e-5


@pytest.mark.parametrize("device", DEVICES)
def test_image_gradients(device):
    former = TorchImageFormer(image_former(cutoff=0.008), device, torch.float64)
    coefficients, x, y = tensors(*scans(2, rows=3), device=device)

    def images(box: torch.Tensor, nanometres: torch.Tensor) -> torch.Tensor:
        scale = torch.as_tensor(BOX, device=device) * 20  # a small aperture needs large aberrations
        return 1e4 * former.images(box * scale, x + 1e-9 * nanometres[:, :1], y + 1e-9 * nanometres[:, 1:], 4, 2e-10)

    box = (coefficients / torch.as_tensor(BOX, device=device)).requires_grad_()
    assert torch.autograd.gradcheck(images, (box, torch.zeros_like(x[:, :2]).requires_grad_()), check_forward_ad=True)


@pytest.mark.parametrize("device", DEVICES)
def test_ronchigram_gradients(device):
    former = TorchRonchigramFormer(ronchigram_former("film-gold-on-carbon", 0.012, 8), device, torch.float64)
    which = torch.tensor([0, 2], device=device)

    def frames(box: torch.Tensor, nanometres: torch.Tensor) -> torch.Tensor:
        return 1e3 * former.frames(box * torch.as_tensor(BOX, device=device) * 10, 1e-9 * nanometres, which, which)

    rng = np.random.default_rng(2)
    inputs = [t.requires_grad_() for t in tensors(rng.uniform(-1, 1, (2, len(NAMES))), rng.uniform(0, 5, (2, 2)), device=device)]
    assert torch.autograd.gradcheck(frames, inputs, check_forward_ad=True)


def test_chunks_and_callers_precision_change_nothing(monkeypatch):
    former, state = TorchImageFormer(image_former(cutoff=0.02), dtype=torch.float64), tensors(*scans(5))
    state[0].requires_grad_()
    whole = former.images(*state, 24, PIXEL)
    (gradient,) = torch.autograd.grad(whole.square().sum(), state[0])
    monkeypatch.setitem(differentiable.CHUNK_BYTES, "cpu", 1)  # a lane at a time
    with torch.autocast("cpu"):
        parts = former.images(*state, 24, PIXEL)
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(torch.autograd.grad(parts.square().sum(), state[0])[0], gradient)
    with torch.no_grad():
        torch.testing.assert_close(former.images(*state, 24, PIXEL), whole.detach())


def test_precision_setting_is_left_as_it_was():
    before = torch.get_float32_matmul_precision()
    former, state = TorchImageFormer(image_former(cutoff=0.01)), tensors(*scans(1), dtype=torch.float32)
    try:
        torch.set_float32_matmul_precision("medium")
        former.images(*state, 24, PIXEL)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_shapes_that_do_not_match_are_refused():
    former = TorchImageFormer(image_former(cutoff=0.01), dtype=torch.float64)
    coefficients, x, y = tensors(*scans(2))
    with pytest.raises(ValueError, match="do not match"):
        former.images(coefficients[:, :3], x, y, 24, PIXEL)
