from __future__ import annotations

import pytest
import torch

from tripletune.models.current_device import on_device_of


def test_tensor_on_the_processor_changes_nothing():
    with on_device_of(torch.zeros(2)):
        assert torch.zeros(1).device.type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs")
def test_gpu_of_a_tensor_is_current_inside_alone():
    with on_device_of(torch.zeros(2, device="cuda:1")):
        assert torch.cuda.current_device() == 1
    assert torch.cuda.current_device() == 0
