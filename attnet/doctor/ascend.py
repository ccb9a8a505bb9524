"""What is on this machine of Ascend's: CANN, driver, firmware, NPUs. Read from files and `npu-smi`, without torch."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnet.base.cann import ROOTS, cann_version, file_field, find_cann
from attnet.doctor.fact import Fact, first_line, run_tool


def examine(
    environment: Mapping[str, str], torch_npu: bool, roots: Sequence[Path] = ROOTS, devices: Path = Path("/dev")
) -> dict[str, Fact]:
    """CANN, its environment, driver, firmware and NPUs.

    Args:
        environment: the process's variables.
        torch_npu: whether torch loads torch_npu, which makes CANN needed.
        roots: folders that hold `ascend-toolkit`, `cann`, `driver`, `firmware`.
        devices: the folder of device files.
    """
    home = find_cann(environment, roots)
    cards = npu_files(devices)
    wanted = torch_npu or bool(cards)
    return {
        "CANN": _cann(home, wanted),
        "set_env.sh": _sourced(environment, home, wanted),
        "driver": _version_file(roots, "driver"),
        "firmware": _version_file(roots, "firmware"),
        "device files": _device_files(cards),
        "npu-smi": _npu_smi(),
    }


def set_env(home: Path | None) -> str:
    """The command that makes CANN known to a shell."""
    places = () if home is None else (home / "set_env.sh", home.parent / "set_env.sh")
    return f"source {next((place for place in places if place.is_file()), '<CANN>/set_env.sh')}"


def npu_files(devices: Path = Path("/dev")) -> list[Path]:
    """The device files of the NPUs, one a card: /dev/davinci0, …"""
    return sorted(path for path in devices.glob("davinci*") if path.name.removeprefix("davinci").isdigit())


def _cann(home: Path | None, wanted: bool) -> Fact:
    if home is not None:
        return Fact(f"{cann_version(home) or 'version unknown'}, {home}")
    if not wanted:
        return Fact("none", absent=True)
    return Fact(
        "none",
        "torch_npu and the NPUs work through CANN only",
        "install Huawei's CANN toolkit with the kernels of your card, then `source <CANN>/set_env.sh`",
    )


def _sourced(environment: Mapping[str, str], home: Path | None, wanted: bool) -> Fact:
    named = environment.get("ASCEND_HOME_PATH", "")
    if named and not Path(named).is_dir():
        return Fact(
            f"ASCEND_HOME_PATH={named}",
            "that folder does not exist, and torch_npu refuses to start",
            f"`unset ASCEND_HOME_PATH`, then `{set_env(home)}`",
        )
    if named and environment.get("ASCEND_OPP_PATH"):
        return Fact("sourced in this shell")
    if not wanted or home is None:
        return Fact("not sourced", absent=True)
    missing = "ASCEND_OPP_PATH" if named else "ASCEND_HOME_PATH"
    return Fact("not sourced", f"{missing} is not set, so CANN's libraries are not found", f"`{set_env(home)}`")


def _version_file(roots: Sequence[Path], part: str) -> Fact:
    for root in roots:
        file = root / part / "version.info"
        if version := file_field(file, r"package_version=(\S+)") or file_field(file, r"Version=(\S+)"):
            return Fact(version)
    return Fact("none", absent=True)


def _device_files(cards: list[Path]) -> Fact:
    if not cards:
        return Fact("none", absent=True)
    value = f"{cards[0]}" if len(cards) == 1 else f"{len(cards)}, {cards[0]} … {cards[-1].name}"
    if all(os.access(card, os.R_OK | os.W_OK) for card in cards):
        return Fact(value)
    return Fact(
        value,
        "you may not read and write them",
        "ask for membership of the group that owns /dev/davinci* (HwHiAiUser as a rule)",
    )


def _npu_smi() -> Fact:
    answer = run_tool("npu-smi", "info", limit=10)
    if answer is None:
        return Fact("not on PATH", absent=True)
    text, error = answer
    if not error and "|" not in text:  # some versions say that the driver is missing and exit with 0
        error = first_line(text) or "it shows no table"
    if error:
        return Fact("failed", error, "install or repair the NPU driver, until `npu-smi info` shows the cards")
    version = re.search(r"npu-smi\s+(\S+)", text)
    # A card's first row: number, name, health. The rows of its chip and of processes have no such name and health.
    rows = re.findall(r"^\|\s*(\d+)\s+([\w-]{3,})\s*\|\s*([A-Za-z]+)\s*\|", text, re.MULTILINE)
    value = f"version {version[1] if version else 'unknown'}, {len(rows)} cards"
    if rows:
        value += f": {', '.join(dict.fromkeys(name for _, name, _ in rows))}"
    sick = [f"card {number} is {health}" for number, _, health in rows if health != "OK"]
    if not sick:
        return Fact(value)
    return Fact(value, ", ".join(sick), "leave those cards out with ASCEND_RT_VISIBLE_DEVICES, and have them repaired")
