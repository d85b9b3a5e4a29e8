"""Sources, splits and statistics."""

import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from small import config, write_folder

import vgg_jax
from vgg_jax.console.errors import UserError
from vgg_jax.datasets.folder import read_picture
from vgg_jax.datasets.load import load, statistics, whole
from vgg_jax.settings.config import group

CIFAR = os.environ.get("CIFAR10_DIR", "")  # a prepared tfds directory, to test on the real data


def digits(**fields):
    return load(config("default", {"data.name": "digits"}, **fields))


def folder(root, **fields):
    return load(config("default", {"data.name": "folder", "data.data_dir": str(root)}, **fields))


def test_digits_are_the_real_ones():
    data = digits()
    train, test = data["train"], data["test"]
    assert (len(train), len(data["validation"]), len(test)) == (1437, 0, 360)
    assert train.images.shape[1:] == (32, 32, 3) and train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32 and set(train.labels) == set(range(10))
    assert train.class_names == tuple("0123456789")
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    np.testing.assert_array_equal(np.concatenate([test.labels, train.labels]), labels[order])
    largest = np.concatenate([test.images, train.images]).max((1, 2, 3)).astype(float) * 16 / 255
    np.testing.assert_allclose(largest, pixels[order].max(1), atol=3)  # enlarging blurs a little
    assert not {i.tobytes() for i in train.images} & {i.tobytes() for i in test.images}


def test_digits_are_found_where_scikit_learn_keeps_them_elsewhere(monkeypatch):
    images = digits()["train"].images
    monkeypatch.setattr("vgg_jax.datasets.load._DIGITS", "moved")
    np.testing.assert_array_equal(digits()["train"].images, images)


def test_validation_is_drawn_from_training_images_by_seed():
    whole = {i.tobytes() for i in digits()["train"].images}
    data = digits(data__validation_size=100)
    held_out, kept = ({i.tobytes() for i in data[split].images} for split in ("validation", "train"))
    assert len(data["validation"]) == 100 and len(data["train"]) == 1337
    assert held_out | kept == whole and not held_out & kept
    assert data["test"].fingerprint == digits()["test"].fingerprint
    again, other = digits(data__validation_size=100), digits(data__validation_size=100, data__seed=1)
    assert again["validation"].fingerprint == data["validation"].fingerprint != other["validation"].fingerprint


def test_train_size_is_a_part_that_leaves_the_validation_split_alone():
    data, small = digits(data__validation_size=100), digits(data__validation_size=100, data__train_size=50)
    assert len(small["train"]) == 50
    assert small["validation"].fingerprint == data["validation"].fingerprint
    assert {i.tobytes() for i in small["train"].images} <= {i.tobytes() for i in data["train"].images}


def test_statistics_are_numpys():
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    mean, std = statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)))
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)))
    assert statistics(np.full((2, 4, 4, 3), 255, np.uint8))[1] == (1.0, 1.0, 1.0)  # constant: no division by 0


def test_normalization_is_of_the_training_images_or_a_half():
    data = digits(data__validation_size=100)
    assert data["test"].mean == data["validation"].mean == statistics(data["train"].images)[0]
    assert digits(data__normalization="half")["train"].std == (0.5, 0.5, 0.5)


def test_arrays_may_be_lists_and_lend_datasets_their_names():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    splits = vgg_jax.data(train=(list(images), [0, 1, 0, 1]), test=(images, [1, 0, 1, 0]))
    assert len(splits["validation"]) == 0 and splits["train"].labels.dtype == np.int32
    named = vgg_jax.data(train=(images, [0, 1, 0, 1]), test=(images, [0, 1, 1, 0]), class_names=["cat", "dog"])
    mixed = whole({"train": named["train"], "test": (images[:2], [1, 1])}, group("data"))
    assert mixed["test"].class_names == ("cat", "dog") and mixed["test"].mean == named["train"].mean
    for more in ({}, {"validation": (images[:2], [1, 1])}):
        with pytest.raises(UserError, match="different class names"):
            whole({"train": named["train"], "test": splits["test"], **more}, group("data"))
    for changed, said in (
        ({"images": images / 255}, "must be uint8"),
        ({"labels": np.full(4, 5)}, "must lie in 0 to 1"),
    ):
        with pytest.raises(UserError, match=said):
            whole({"train": named["train"], "test": replace(named["test"], **changed)}, group("data"))


def test_fingerprint_sees_images_and_labels():
    data = digits()["test"]
    image, label = data.images.copy(), data.labels.copy()
    image[0, 0, 0, 0] ^= 1
    label[0] ^= 1
    assert len({d.fingerprint for d in (data, replace(data, images=image), replace(data, labels=label))}) == 3


def test_folder_of_pictures(tmp_path):
    root = write_folder(tmp_path, {"cat": 3, "dog": 2})
    Image.new("L", (32, 32), 7).save(root / "train" / "dog" / "grey.jpg")
    (root / "train" / "dog" / ".hidden.txt").write_text("no picture")
    data = folder(root)
    assert data["train"].class_names == ("cat", "dog")
    assert data["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data["test"].labels.tolist() == [0, 0, 0, 1, 1]
    np.testing.assert_array_equal(data["train"].images[0], np.asarray(Image.open(root / "train" / "cat" / "0.png")))


def test_resize_scales_and_crops_the_centre(tmp_path):
    picture = Image.new("RGB", (96, 64), "red")
    picture.paste("blue", (16, 0, 80, 64))
    picture.save(tmp_path / "wide.png")
    pixels = read_picture(tmp_path / "wide.png", 32, "area")
    assert pixels.shape == (32, 32, 3)
    np.testing.assert_array_equal(pixels[16, 16], (0, 0, 255))
    assert (pixels[:, 2:-2] == (0, 0, 255)).all()  # the red sides are cropped


def test_larger_pictures_are_averaged_over_areas_and_smaller_ones_are_enlarged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.png")
    means = pixels[:, 16:-16].reshape(32, 3, 32, 3, 3).mean((1, 3))
    assert np.abs(read_picture(tmp_path / "large.png", 32, "area") - means).max() <= 1
    assert np.abs(read_picture(tmp_path / "large.png", 32, "bicubic") - means).max() > 9
    small = Image.fromarray(pixels[:8, :8])
    small.save(tmp_path / "small.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "small.png", 32, "area"), small.resize((32, 32)))


@pytest.mark.skipif(not os.path.isdir(f"{CIFAR}/cifar10"), reason="CIFAR10_DIR names no tfds directory with cifar10")
def test_real_cifar10():
    data = load(config("default", {}, data__data_dir=CIFAR))
    train, test = data["train"], data["test"]
    assert train.images.shape == (50_000, 32, 32, 3) and test.images.shape == (10_000, 32, 32, 3)
    np.testing.assert_allclose(train.mean, (0.4914, 0.4822, 0.4465), atol=1e-4)
    np.testing.assert_allclose(train.std, (0.2470, 0.2435, 0.2616), atol=1e-4)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    assert train.class_names[3] == "cat"
    again = load(config("default", {}, data__data_dir=CIFAR))  # from the cache
    assert again["train"].fingerprint == train.fingerprint
