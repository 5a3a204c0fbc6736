from __future__ import annotations

import pytest
import torch

from adain_core.images import load_image


@pytest.mark.usefixtures("every_preview")
def test_a_picture_is_refined_and_its_steps_are_shown(run, encoder, photo, painting, monkeypatch):
    import comfy.utils

    shown = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_THROTTLE_MIN_INTERVAL", 0)
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda done, total, preview=None, **more: shown.append((done, total, preview))
    )
    result = run("Refine", image=photo, content=photo, style_image=painting, encoder=encoder, steps=3)
    assert result.shape == photo.shape and 0 <= result.min() and result.max() <= 1
    assert not torch.equal(result, photo)
    assert [(done, total) for done, total, preview in shown if preview] == [(1, 3), (2, 3), (3, 3)]


def test_cancel_saves_the_best_of_each_picture_so_far(run, part, encoder, photo, painting, interrupt, folders, caplog):
    interrupt(7)
    images = torch.cat([photo, photo.flip(1), photo.flip(2)])
    with pytest.raises(part("nodes.host").Interrupted), caplog.at_level("INFO"):
        run("Refine", image=images, content=images, style_image=painting, encoder=encoder, steps=5)
    saved = sorted((folders / "output").glob("*.png"))
    assert [path.name for path in saved] == ["adain_refined_00001_.png", "adain_refined_00002_.png"]
    assert str(saved[-1]) in caplog.text
    part("nodes.host").model_management.interrupt_current_processing(False)
    interrupt(-1)
    whole = run("Refine", image=images, content=images, style_image=painting, encoder=encoder, steps=5)
    torch.testing.assert_close(load_image(saved[0])[0].movedim(0, -1), whole[0], atol=1 / 255, rtol=0)
    begun = run("Refine", image=images[1:2], content=images[1:2], style_image=painting, encoder=encoder, steps=2)
    torch.testing.assert_close(load_image(saved[1])[0].movedim(0, -1), begun[0], atol=1 / 255, rtol=0)


def test_a_content_of_another_size_is_refused(run, encoder, photo, painting):
    with pytest.raises(ValueError, match="the picture to refine is 45x37, its content 45x36; give both in one size"):
        run("Refine", image=photo, content=photo[:, 1:], style_image=painting, encoder=encoder)
