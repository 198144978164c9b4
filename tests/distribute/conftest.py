"""Folders that look like the root of a host with certain cards."""

import pytest

# PCI vendor, device and class.
CARDS = {
    "gvnic": ("0x1ae0", "0x0042", "0x020000"),
    "disk": ("0x1ae0", "0x001f", "0x010802"),
    "v3": ("0x1ae0", "0x0027", "0x088000"),
    "v4": ("0x1ae0", "0x005e", "0x088000"),
    "v5p": ("0x1ae0", "0x0062", "0x088000"),
    "v5e": ("0x1ae0", "0x0063", "0x088000"),
    "v6e": ("0x1ae0", "0x006f", "0x088000"),
    "later": ("0x1ae0", "0x00ff", "0x088000"),
    "intel": ("0x8086", "0x0063", "0x088000"),
    "nvidia": ("0x10de", "0x2330", "0x030200"),
    "nvidia switch": ("0x10de", "0x22a3", "0x068000"),
    "amd": ("0x1002", "0x1234", "0x030000"),
}


@pytest.fixture
def make_host(tmp_path):
    """Makes a root with device files and cards, and returns it."""

    def make(*cards: str, files: tuple[str, ...] = ()) -> str:
        for i, card in enumerate(cards):
            folder = tmp_path / f"host/sys/bus/pci/devices/0000:00:{i:02x}.0"
            folder.mkdir(parents=True)
            for name, value in zip(("vendor", "device", "class"), CARDS[card], strict=True):
                (folder / name).write_text(f"{value}\n")
        for file in files:
            path = tmp_path / "host" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return str(tmp_path / "host")

    return make
