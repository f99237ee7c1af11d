"""From a checkpoint to files of depth: what is written and printed, and that it continues after a bad image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from checkpoints import write_checkpoint
from orientations import stored_as
from PIL import Image
from videos import write_video

from depthray import load, models
from depthray.__main__ import main
from depthray.checkpoints import load as checkpoints_load
from depthray.checkpoints import save
from depthray.cli import predict as predict_command
from depthray.errors import CheckpointError, DataError, ResourceError, UsageError
from depthray.predict import MONOCULAR
from depthray.training import preflight


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run"))


def photograph(height=50, width=70):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 4, 255 - x - y], -1).astype(np.uint8)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "room.v1.png"
    Image.fromarray(photograph()).save(path)
    return path


@pytest.mark.parametrize("size", [(50, 70), (64, 96), (200, 150), (1, 1)])
def test_depth_has_the_size_of_the_image_and_is_metres(trained, size):
    depth = load(trained).predict(photograph(*size))
    assert depth.shape == size and depth.dtype == np.float32
    assert np.isfinite(depth).all() and (depth > 0).all() and (depth <= 10).all()


def test_prediction_may_keep_the_aspect_of_the_image_as_depth_anything_wants_it(tmp_path):
    arguments = ["data.fit=aspect", "data.size=42,56", "model={name: dpt, size: tiny}"]
    predictor, seen = load(write_checkpoint(tmp_path, *arguments)), []
    predictor.model.register_forward_pre_hook(lambda _, given: seen.append(given[0]["image"]))
    rgb = photograph(50, 100)
    assert predictor.predict(rgb).shape == (50, 100)
    published = cv2.resize(rgb / 255.0, (84, 42), interpolation=cv2.INTER_CUBIC)
    assert np.abs(seen[0][0].permute(1, 2, 0).numpy() - published).max() < 1e-5


def test_prediction_refuses_class_ids_that_look_alike(tmp_path):
    predictor = load(write_checkpoint(tmp_path, "data.inputs=[image,semantics]"))
    with pytest.raises(DataError, match=r"class id 1023 is out of range: this network has 1023 classes \(0 to 1022\)"):
        predictor.predict(photograph(), semantics=np.full((50, 70), 1023))


def test_prediction_is_the_network_at_its_own_size_resized_back_bilinearly(trained):
    import torch

    predictor, rgb = load(trained), photograph(64, 96)
    with torch.inference_mode():
        batch = {"image": torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255}
        expected = models.run(predictor.model, batch)["depth"][0, 0].numpy()
    assert np.abs(predictor.predict(rgb) - expected).max() < 1e-5
    assert np.ptp(expected) > 1e-4


def test_a_run_folder_means_its_best_checkpoint_and_no_download(trained, tmp_path):
    assert load(trained.parents[1]).predict(photograph()).shape == (50, 70)
    assert load(write_checkpoint(tmp_path, "model.pretrained=false")).recipe.model.name == "unet"


def test_every_kind_of_image_gives_the_same_depth(trained, tmp_path):
    predictor, rgb = load(trained), photograph()
    expected = predictor.predict(rgb)
    Image.fromarray(rgb).save(tmp_path / "a.png")
    tensor = torch.from_numpy(rgb).permute(2, 0, 1)
    alpha = np.dstack([rgb, np.full(rgb.shape[:2], 7, np.uint8)])
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), Image.fromarray(rgb), tensor, tensor / 255, alpha):
        depth = predictor.predict(image)
        assert np.array_equal(depth, expected) and np.array_equal(depth.image, rgb)
    assert predictor.maps(tmp_path / "a.png")["depth"].tobytes() == expected.tobytes()
    assert "unet" in repr(predictor) and "inputs image" in repr(predictor)


def test_several_images_share_passes_and_keep_their_order(trained, monkeypatch):
    predictor = load(trained)
    sizes, images = [], [photograph(50, 70), photograph(64, 96), *[photograph(40 + i, 70) for i in range(9)]]
    run = predictor.run

    def counted(samples, **options):
        sizes.append(len(samples))
        return run(samples, **options)

    monkeypatch.setattr(predictor, "run", counted)
    found = predictor.predict(images)
    assert sizes == [8, 3] and [depth.shape for depth in found] == [image.shape[:2] for image in images]
    for depth, image in zip(found, images, strict=True):
        np.testing.assert_allclose(depth, predictor.predict(image), rtol=1e-4)
        assert np.array_equal(depth.image, image) and not np.shares_memory(depth.image, image)
    batch = np.stack([photograph(), photograph()[::-1]])
    for several in (batch, torch.from_numpy(batch).permute(0, 3, 1, 2), tuple(batch)):
        np.testing.assert_allclose(predictor.predict(several), [predictor.predict(each) for each in batch], rtol=1e-4)
    assert predictor.predict([]) == []
    with pytest.raises(DataError, match=r"image 1: an image is a path"):
        predictor.predict([photograph(), 5])


def test_depth_that_is_not_in_metres_says_so(tmp_path):
    shares = ("loss.target=relative", "eval.protocol=legacy-003", "eval.monitor=mse", "model.max_depth=1")
    depth = load(write_checkpoint(tmp_path, *shares)).predict(photograph())
    assert depth.shape == (50, 70) and depth.colour().shape == (50, 70, 3)
    for use in (lambda: depth.metres, depth.png16, depth.points):
        with pytest.raises(UsageError, match="this depth is shares of each image's largest depth"):
            use()


@pytest.fixture(scope="module")
def completing(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("completing"), "data.inputs=image,sparse")


def test_further_inputs_are_used_and_checked(completing):
    predictor, rgb = load(completing), photograph()
    with torch.no_grad():
        [parameter.add_(torch.randn_like(parameter), alpha=0.05) for parameter in predictor.model.parameters()]
    near, far = (np.full((50, 70), metres, np.float32) for metres in (1, 9))
    assert not np.array_equal(predictor.predict(rgb, sparse=near), predictor.predict(rgb, sparse=far))
    both = predictor.predict([rgb, rgb], sparse=[near, far])
    for depth, sparse in zip(both, (near, far), strict=True):
        np.testing.assert_allclose(depth, predictor.predict(rgb, sparse=sparse), rtol=1e-4)
    with pytest.raises(UsageError, match="sparse: 50 for 2 images; give one for each"):
        predictor.predict([rgb, rgb], sparse=near)
    with pytest.raises(UsageError, match="needs sparse too; its inputs are image, sparse"):
        predictor.predict(rgb)
    with pytest.raises(UsageError, match="does not take background"):
        predictor.predict(rgb, sparse=near, background=rgb)
    with pytest.raises(DataError, match="sparse is 69x50 but the image is 70x50"):
        predictor.predict(rgb, sparse=near[:, 1:])
    with pytest.raises(DataError, match=r"sparse is a \(H,W\) array of metres"):
        predictor.predict(rgb, sparse=rgb)


def test_further_inputs_on_the_command_line(completing, image, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out"), "--format", "npy"]
    with pytest.raises(UsageError, match="needs --sparse as well"):
        predict_command.main([str(completing), str(image), *out])
    with pytest.raises(UsageError, match="--background: this network does not take it"):
        predict_command.main([str(completing), str(image), "--sparse", "x.png", "--background", "y.png", *out])
    metres = np.full(photograph().shape[:2], 2.0, np.float32)
    (tmp_path / "sparse").mkdir()
    cv2.imwrite(str(tmp_path / "sparse" / f"{image.stem}.png"), (metres * 1000).astype(np.uint16))
    np.save(tmp_path / "sparse.npy", metres)
    found = []
    for sparse in ("sparse", "sparse.npy"):
        assert predict_command.main([str(completing), str(image), "--sparse", str(tmp_path / sparse), *out]) == 0
        found.append(np.load(tmp_path / "out" / f"{image.stem}.depth.npy"))
    assert np.array_equal(*found)
    (tmp_path / "out" / f"{image.stem}.png").touch()
    assert predict_command.main([str(completing), str(image), "--sparse", str(tmp_path / "out"), *out]) == 3
    assert "several files for this image" in capsys.readouterr().err


def test_a_network_trained_without_samples_too_answers_as_a_monocular_one(tmp_path, image, caplog):
    either = write_checkpoint(tmp_path, "data.inputs=image,sparse", "data.sparse.samples=0,5000")
    predictor, rgb = load(either), photograph()
    assert predictor.optional_inputs == ("sparse",)
    alone = [predictor.predict(rgb) for _ in range(2)]
    assert [record.getMessage() for record in caplog.records] == [MONOCULAR]  # once
    empty = predictor.predict(rgb, sparse=np.zeros(rgb.shape[:2], np.float32))
    assert np.array_equal(alone[0], empty) and np.array_equal(alone[0], alone[1])
    caplog.clear()
    assert predict_command.main([str(either), str(image), "--out", str(tmp_path / "out"), "--format", "npy"]) == 0
    assert [record.getMessage() for record in caplog.records] == [MONOCULAR]


@pytest.mark.parametrize(
    ("words", "optional"),
    [
        ([], ()),
        (["data.sparse.dropout=0.1"], ("sparse",)),
        (["data.sparse.samples=5,500"], ()),
        (["data.sparse.samples=0,500"], ("sparse",)),
        (["data.sparse.samples=0,500", "data.inputs=sparse"], ()),
        (["model.sparse_fusion=late"], ()),
        (["model.sparse_fusion=late", "loss.monocular=1"], ("sparse",)),
    ],
)
def test_sparse_depth_is_optional_where_training_had_frames_without(words, optional, tmp_path):
    made = write_checkpoint(tmp_path, "data.inputs=image,sparse", *words)
    assert load(made).optional_inputs == optional


def test_a_network_of_masks_writes_a_mask(tmp_path, image, capsys):
    made = write_checkpoint(tmp_path, name="masknet")
    with pytest.raises(UsageError, match="was trained for mask, not depth"):
        load(made).predict(photograph(), background=photograph())
    maps = load(made).maps(photograph(), background=photograph())
    assert set(maps) == {"mask"}
    assert 0 <= maps["mask"].min() <= maps["mask"].max() <= 1
    command = [str(made), str(image), "--background", str(image), "--out", str(tmp_path / "out")]
    assert predict_command.main(command) == 0
    written = cv2.imread(str(tmp_path / "out" / f"{image.stem}.mask.png"), cv2.IMREAD_UNCHANGED)
    assert set(np.unique(written)) <= {0, 255}
    assert "foreground" in capsys.readouterr().out


def test_a_target_that_the_network_lacks_is_left_out_or_named(tmp_path, image, capsys):
    both = write_checkpoint(tmp_path / "both", "data.targets=depth,mask")
    assert set(load(both).maps(photograph())) == {"depth"}
    assert load(both).predict(photograph()).shape == (50, 70)
    assert predict_command.main([str(both), str(image), "--out", str(tmp_path / "out")]) == 0
    only = write_checkpoint(tmp_path / "only", "data.targets=mask", "eval.monitor=iou")
    with pytest.raises(UsageError, match="this network predicts depth, none of mask"):
        load(only).maps(photograph())
    masks = write_checkpoint(tmp_path / "masks", "data.targets=mask,depth", name="masknet")
    with pytest.raises(UsageError, match="this network predicts mask, not depth"):
        load(masks).predict(photograph(), background=photograph())
    arguments = [str(image), "--background", str(image), "--out", str(tmp_path / "out")]
    assert predict_command.main([str(masks), *arguments]) == 0
    assert f"{image.stem}.mask.png" in capsys.readouterr().out


def test_weights_of_another_network_are_refused(trained, tmp_path):
    from dataclasses import replace

    contents = checkpoints_load.load(trained)
    wide = contents.recipe.model_copy(update={"model": preflight.load("demo", ["model.encoder=resnet18"]).model})
    made = save.write(tmp_path / "checkpoints", replace(contents, recipe=wide))
    with pytest.raises(CheckpointError, match="weights do not fit the recipe"):
        load(made)


@pytest.mark.parametrize("name", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(trained, name):
    with pytest.raises(UsageError, match=f"^device {name}: th"):
        load(trained, device=name)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_gives_the_depth_of_the_upright_image(trained, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored_as(photograph(), orientation)).save(tmp_path / "turned.png", exif=exif)
    assert (
        predict_command.main([str(trained), str(tmp_path / "turned.png"), "--out", str(tmp_path), "--format", "npy"])
        == 0
    )
    assert (np.load(tmp_path / "turned.depth.npy") == load(trained).predict(photograph())).all()


def test_every_format_is_written_to_the_printed_path(trained, image, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert predict_command.main([str(trained), str(image), "--out", str(out), "--format", "png,npy,colour,ply"]) == 0
    printed = [
        line.split("-> ")[1].split("  (red")[0] for line in capsys.readouterr().out.splitlines() if "-> " in line
    ]
    names = ["room.v1.depth.png", "room.v1.depth.npy", "room.v1.colour.png", "room.v1.ply"]
    assert printed == [str(out / name) for name in names] and sorted(names) == sorted(
        path.name for path in out.iterdir()
    )
    stored = cv2.imread(printed[0], cv2.IMREAD_UNCHANGED)
    assert np.abs(stored / 1000 - np.load(printed[1]).astype(np.float64)).max() <= 0.0005 + 1e-9
    assert stored.shape == (50, 70) and b"camera ASSUMED" in (out / names[3]).read_bytes()[:400]


def test_an_assumed_camera_is_reported_and_a_given_one_used(trained, image, tmp_path, capsys):
    command = [str(trained), str(image), "--out", str(tmp_path), "--format", "ply"]
    predict_command.main(command)
    assert "WARNING: the camera is ASSUMED" in capsys.readouterr().err
    predict_command.main([*command, "--intrinsics", "60,61,34.5,24.5"])
    assert "ASSUMED" not in capsys.readouterr().err
    head = (tmp_path / "room.v1.ply").read_bytes()[:400]
    assert b"comment fx 60 fy 61 cx 34.5 cy 24.5" in head and b"ASSUMED" not in head


def test_other_formats_and_videos_of_a_folder_are_predicted_too(trained, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in ("a.tif", "b.bmp", "c.ppm", "d.GIF"):
        Image.fromarray(photograph()).save(tmp_path / "in" / name)
    write_video(tmp_path / "in" / "e.mp4", [photograph(48, 64)] * 3)
    command = [str(trained), str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--format", "npy,colour"]
    assert predict_command.main([*command, "--range", "0,10"]) == 0
    assert "5 of 5 images predicted" in capsys.readouterr().out
    expected = load(trained).predict(photograph())
    assert all((np.load(tmp_path / "out" / f"{name}.depth.npy") == expected).all() for name in "abc")
    files = sorted(
        str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if "e" in path.stem
    )
    assert [name for name in files if name.startswith("e")] == [
        *("e", "e.colour.mp4", "e.frames.csv", "e/000000.depth.npy", "e/000001.depth.npy", "e/000002.depth.npy"),
    ]


def test_a_bad_image_in_a_folder_does_not_stop_the_others(trained, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.png", "c.JPG", "c.png"):
        Image.fromarray(photograph()).save(folder / name)
    (folder / "b.jpg").write_bytes(b"not a picture")
    (folder / "notes.txt").write_text("no image")
    assert main(["predict", str(trained), str(folder), "--out", str(tmp_path / "out")]) == 3
    printed = capsys.readouterr()
    assert "3 of 4 images predicted" in printed.out and "b.jpg: not a JPEG, PNG, WebP, TIFF" in printed.err
    assert ": notes.txt" in printed.err and "skipped: 1 file of" in printed.err
    made = sorted(path.name for path in (tmp_path / "out").glob("*.depth.png"))
    assert made == ["a.depth.png", "c.JPG.depth.png", "c.png.depth.png"]


def test_subfolders_count_only_on_request_and_keep_their_path(trained, tmp_path):
    (tmp_path / "in" / "deep").mkdir(parents=True)
    Image.fromarray(photograph()).save(tmp_path / "in" / "deep" / "a.png")
    command = [str(trained), str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    with pytest.raises(
        DataError, match=r"no JPEG, PNG, WebP, .* or video in .*; --recursive looks into the folders in it"
    ):
        predict_command.main(command)
    assert predict_command.main([*command, "--recursive"]) == 0
    assert (tmp_path / "out" / "deep" / "a.depth.png").is_file()


def test_earlier_outputs_are_no_inputs(trained, image, capsys):
    command = [str(trained), str(image.parent), "--out", str(image.parent)]
    assert predict_command.main(command) == predict_command.main(command) == 0
    assert "1 of 1 images predicted" in capsys.readouterr().out.splitlines()[-1]


def test_two_images_never_share_a_place(trained, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.fromarray(photograph()).save(tmp_path / name / "a.png")
    with pytest.raises(UsageError, match=r"a\.png is in two of the folders"):
        predict_command.main(
            [str(trained), str(tmp_path / "one"), str(tmp_path / "two"), "--out", str(tmp_path / "out")]
        )


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--format", "png,colur", "no format 'colur' .did you mean 'colour'"),
        ("--intrinsics", "1,2,3", "give four numbers"),
        ("--intrinsics", "nan,1,2,3", "must be positive"),
        ("--intrinsics", "0,1,2,3", "must be positive"),
        ("--max-megapixels", "nan", "give a number above 0"),
        ("--range", "2", "give two numbers NEAR,FAR in metres"),
        ("--range", "8,2", "FAR is larger"),
        ("--every", "0", "--every 0: give a number above 0"),
    ],
)
def test_wrong_flags_are_named_before_anything_is_loaded(image, flag, value, message):
    with pytest.raises(UsageError, match=message):
        predict_command.main(["no-such-checkpoint", str(image), flag, value])


def test_pixel_limit_of_the_command_line(trained, image, tmp_path, capsys):
    assert predict_command.main([str(trained), str(image), "--out", str(tmp_path), "--max-megapixels", "0.001"]) == 3
    assert "70x50 pixels, at most 0.001 million" in capsys.readouterr().err


def test_an_output_folder_that_cannot_be_made_is_named(trained, image, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        predict_command.main([str(trained), str(image), "--out", str(tmp_path / "file")])
