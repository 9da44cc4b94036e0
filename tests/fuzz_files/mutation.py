"""What all mutations are: functions that change the file at a path, drawn with a `random.Random`."""


class Unfit(Exception):
    """This file cannot be changed so: another mutation is drawn."""


def refused(mutation):
    """Marks a mutation after which every command must refuse the file."""
    mutation.refused = True
    return mutation


def on_bytes(change):
    """A mutation that changes the bytes of a file."""

    def mutation(path, random):
        content = path.read_bytes()
        changed = change(content, random) if content else content
        if changed == content:
            raise Unfit
        path.write_bytes(changed)

    mutation.__name__ = change.__name__
    return mutation
