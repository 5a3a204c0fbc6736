"""What a device can do, and how much of it is free."""

from __future__ import annotations

import psutil
import pytest
import torch

from adain_core import devices
from adain_core.cli import main
from adain_core.devices import fast_dtype, free_memory, is_out_of_memory
from adain_core.errors import AdainError
from adain_core.images import load_image, save_image
from adain_core.training.data import PictureFolder

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "capability", "expected"),
    [
        ("NVIDIA GeForce RTX 4090", (8, 9), torch.float16),
        ("NVIDIA GeForce GTX 1660 Ti", (7, 5), torch.float32),
        ("NVIDIA GeForce GTX 1080", (6, 1), torch.float32),
    ],
)
def test_the_fast_number_type_of_an_nvidia_card(monkeypatch, name, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert fast_dtype(torch.device("cuda")) == expected


@pytest.mark.parametrize(
    "files",
    [
        {"memory.max": "1000000", "memory.current": "700000", "memory.stat": "anon 500000\ninactive_file 50000\n"},
        {
            "memory/memory.limit_in_bytes": "1000000",
            "memory/memory.usage_in_bytes": "700000",
            "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 50000\n",
        },
    ],
    ids=["v2", "v1"],
)
def test_a_container_has_what_its_limit_leaves(tmp_path, monkeypatch, files):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(devices, "CGROUPS", tmp_path)
    assert free_memory(CPU) == 350_000


def test_without_a_limit_the_system_says_what_is_free(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("max\n")
    monkeypatch.setattr(devices, "CGROUPS", tmp_path)
    assert abs(free_memory(CPU) - psutil.virtual_memory().available) < 1 << 30


def test_tf32_is_off_until_the_last_of_several_threads_is_done(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    first, second = devices.exact_float32(), devices.exact_float32()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not torch.backends.cudnn.allow_tf32
    second.__exit__(None, None, None)
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize(("capability", "expected"), [((8, 9), True), ((7, 5), False)], ids=["RTX 4090", "RTX 2080"])
def test_the_given_gpu_is_asked_for_bfloat16_and_not_the_current_one(monkeypatch, capability, expected):
    gpu = torch.device("cuda:1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: {gpu: capability}[device])
    assert devices.has_fast_bfloat16(gpu) is expected


def test_each_process_of_a_training_gets_its_own_gpu(monkeypatch):
    monkeypatch.setattr(devices, "available_devices", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve_device("cuda") == torch.device("cuda")
    assert devices.resolve_device("auto") == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert devices.resolve_device("auto") == devices.resolve_device("cuda") == torch.device("cuda:1")
    assert devices.resolve_device("cuda:0") == torch.device("cuda:0")  # who names one gets it
    assert devices.resolve_device("cpu") == torch.device("cpu")


def test_a_gpu_that_does_not_tell_its_free_memory_has_what_is_not_reserved(monkeypatch):
    def silent(device):
        raise RuntimeError("The device doesn't support querying the available free memory.")

    properties = type("Properties", (), {"total_memory": 1000})
    monkeypatch.setattr(torch.xpu, "mem_get_info", silent)
    monkeypatch.setattr(torch.xpu, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.xpu, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.xpu, "get_device_properties", lambda device: properties)
    assert free_memory(torch.device("xpu")) == 900


def test_a_host_counts_the_memory_of_devices_that_are_unknown_here(monkeypatch):
    monkeypatch.setattr(devices, "_count_of_host", None)
    device = torch.device("privateuseone")  # DirectML's
    assert free_memory(device) == pytest.approx(free_memory(CPU), rel=0.5)
    devices.count_memory_by(lambda device: 123)
    assert free_memory(device) == 123
    assert free_memory(CPU) > 123


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "GET was unable to find an engine to execute this computation",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "Invalid buffer size: 18.00 GiB",
        "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
        "Could not allocate tensor with 1073741824 bytes. There is not enough GPU video memory available!",
    ],
)
def test_memory_of_a_gpu_that_runs_out_is_known_for_it(message):
    assert devices.is_out_of_memory(RuntimeError(message))
    assert not devices.is_out_of_memory(ValueError(message))


def test_memory_that_cannot_be_given_back_stops_nothing(monkeypatch):
    def broken():
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(devices, "available_devices", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(torch.cuda, "empty_cache", broken)
    devices.release_memory()


MEMORY = [
    MemoryError(), MemoryError(()), 
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("could not create a primitive"),
    RuntimeError("could not create a memory object"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried to"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB)."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)"),
    RuntimeError("std::bad_alloc"), RuntimeError("bad allocation"),
    RuntimeError("can't start new thread"),
    OSError(12, "Cannot allocate memory"), OSError("out of memory error when reading image file"),
]  # fmt: skip
OTHER = [
    RuntimeError("could not create a primitive descriptor for a convolution forward propagation primitive"),
    RuntimeError("Given groups=1, weight of size [3, 3, 3, 3]"), OSError(28, "No space left on device"), ValueError("memory"),
    AdainError("the disk is out of memory, says a file's name"), KeyError("a name"),
]  # fmt: skip


@pytest.mark.parametrize("error", MEMORY, ids=str)
def test_memory_that_ran_out_is_known_for_it(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHER, ids=str)
def test_other_errors_are_not_taken_for_it(error):
    assert not is_out_of_memory(error)


@pytest.mark.parametrize("error", [MemoryError(()), OSError("out of memory error when reading image file")], ids=str)
def test_a_picture_for_which_the_memory_is_too_small_is_not_called_damaged(tmp_path, monkeypatch, capsys, small_files, error):
    def fail(self):
        raise error

    save_image(torch.rand(3, 20, 24), tmp_path / "photo.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(MemoryError, match="the memory is too small for .*photo.png"):
        load_image(tmp_path / "photo.png")
    with pytest.raises(MemoryError):
        PictureFolder(tmp_path, 8)
    networks = ["--encoder", str(small_files[0]), "--decoder", str(small_files[1]), "--device", "cpu"]
    arguments = ["stylize", str(tmp_path / "photo.png"), str(tmp_path / "photo.png"), "-o", str(tmp_path / "out.png")]
    assert main([*arguments, *networks]) == 2
    assert capsys.readouterr().err == "adain: the memory is too small for this; give smaller pictures, or tiles with --tile.\n"


@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), OSError(12, "Cannot allocate memory"), MemoryError(())], ids=str
)
def test_the_command_says_in_one_line_that_the_memory_is_too_small(monkeypatch, capsys, error):
    def fail():
        raise error

    monkeypatch.setattr("adain_core.cli.info.catalog", fail)
    assert main(["info"]) == 2
    assert capsys.readouterr().err == "adain: the memory is too small for this; give smaller pictures, or tiles with --tile.\n"


def test_a_disk_that_cannot_be_read_is_not_called_a_damaged_picture(tmp_path, monkeypatch):
    def fail(self):
        raise OSError(5, "Input/output error")

    save_image(torch.rand(3, 20, 24), tmp_path / "photo.png")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", fail)
    with pytest.raises(OSError, match="Input/output error"):
        load_image(tmp_path / "photo.png")
