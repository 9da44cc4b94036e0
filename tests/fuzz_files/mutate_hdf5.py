"""Changes to HDF5 files: datasets of other types, from elsewhere, or far too large; links; attributes."""

import h5py
import numpy as np
from mutate_json import changed_json
from mutation import Unfit, refused

HUGE = 1 << 29  # numbers of a dataset that takes no space in the file


def datasets(file):
    """Paths of all datasets."""
    found = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
    return found


def change_of_a_dataset(change):
    """A mutation by a function of `(file, name, values, random)`, after which the dataset is away."""

    def mutation(path, random):
        with h5py.File(path, "r+") as file:
            names = [name for name in datasets(file) if not name.startswith("optimizer") and file[name].size]
            if not names:
                raise Unfit
            name = random.choice(names)
            values = file[name][()]
            del file[name]
            change(file, name, values, random)

    mutation.__name__ = change.__name__
    mutation.refused = getattr(change, "refused", False)
    return mutation


def dataset_removed(file, name, values, random):
    pass


def dataset_renamed(file, name, values, random):
    file[name + random.choice(("_", "\x1b[31m", "/deeper", "x" * 5000))] = values


def dataset_of_another_type(file, name, values, random):
    kind = random.choice(("f2", "f8", ">f4", "i1", "i8", "u8", "bool"))
    file[name] = values.astype(kind)


@refused
def dataset_of_no_real_numbers(file, name, values, random):
    shape, kind = values.shape, random.choice(("text", "fixed text", "complex", "compound", "reference", "opaque"))
    if kind == "text":
        file.create_dataset(name, shape, h5py.string_dtype())
    elif kind == "reference":
        file.create_dataset(name, shape, h5py.ref_dtype)
    else:
        types = {"fixed text": "S4", "complex": "c8", "compound": [("a", "f4"), ("b", "i4")], "opaque": "V4"}
        file[name] = np.zeros(shape, types[kind])


@refused
def dataset_of_another_shape(file, name, values, random):
    shapes = ((), (0,), (1,), (*values.shape, 1), (*values.shape, 2), (1,) * 32)
    file[name] = np.zeros(random.choice([shape for shape in shapes if shape != values.shape]), values.dtype)


@refused
def dataset_without_values(file, name, values, random):
    file[name] = h5py.Empty("f4")


@refused
def dataset_not_finite(file, name, values, random):
    values = np.array(values, np.float32)
    values.reshape(-1)[random.randrange(values.size)] = random.choice((np.nan, np.inf, -np.inf))
    file[name] = values


@refused
def dataset_far_too_large(file, name, values, random):
    """Chunks that were never written: the file stays small."""
    sides = random.choice(((HUGE,), (1 << 40,), (1 << 15, 1 << 15), (*values.shape, HUGE)))
    file.create_dataset(name, sides, "f4", chunks=(*(1,) * (len(sides) - 1), 1024), fillvalue=0.5)


@refused
def dataset_in_another_file(file, name, values, random):
    """Its numbers are those of a file that is not the user's, `seeds/elsewhere.bin`."""
    count = values.size * 4
    file.create_dataset(name, values.shape, "f4", external=[("seeds/elsewhere.bin", 0, count)])


@refused
def dataset_virtual(file, name, values, random):
    layout = h5py.VirtualLayout(values.shape, "f4")
    layout[...] = h5py.VirtualSource("seeds/elsewhere.h5", "numbers", values.shape)
    file.create_virtual_dataset(name, layout, fillvalue=0.25)


@refused
def link_to_another_file(file, name, values, random):
    file[name] = h5py.ExternalLink("seeds/elsewhere.h5", "numbers")


@refused
def link_that_leads_nowhere(file, name, values, random):
    file[name] = h5py.SoftLink(random.choice(("/nowhere", f"/{name}")))


def group_in_itself(path, random):
    with h5py.File(path, "r+") as file:
        file["again"] = file["/"]


def more_groups(path, random):
    with h5py.File(path, "r+") as file:
        if random.random() < 0.5:
            file.create_group("/deep" * 500)
        else:
            for index in range(2000):
                file.create_group(f"many/{index}")


def attribute_changed(path, random):
    with h5py.File(path, "r+") as file:
        texts = [name for name, value in file.attrs.items() if isinstance(value, str) and value.startswith("{")]
        if texts and random.random() < 0.9:
            name = random.choice(texts)
            changed = changed_json(file.attrs[name], random).encode("utf-8", "surrogatepass")
            del file.attrs[name]
            file.attrs.create(name, changed.decode(errors="replace").replace("\0", ""), dtype=h5py.string_dtype())
            return
        everything = [file]
        file.visititems(lambda _, item: everything.append(item))
        item = random.choice([item for item in everything if len(item.attrs)] or [None])
        if item is None:
            raise Unfit
        name = random.choice(list(item.attrs))
        del item.attrs[name]
        if random.random() < 0.8:
            item.attrs[name] = random.choice((b"", "x" * 1000, -1, 1 << 40, np.zeros((0,)), np.nan, ["\x1b[31m"]))


DATASETS = (
    dataset_removed,
    dataset_renamed,
    dataset_of_another_type,
    dataset_of_no_real_numbers,
    dataset_of_another_shape,
    dataset_without_values,
    dataset_not_finite,
    dataset_far_too_large,
    dataset_in_another_file,
    dataset_virtual,
    link_to_another_file,
    link_that_leads_nowhere,
)
HDF5 = (*map(change_of_a_dataset, DATASETS), group_in_itself, more_groups, attribute_changed)
