"""What is said of the machine."""

from compress.artifacts import Machine
from compress.measure.machine import RELEVANT_FLAGS, machine_info, parse_cpuinfo, saturates_int8


def test_this_machine_has_a_name_cores_and_versions() -> None:
    machine = machine_info()
    assert machine.cpu
    assert machine.cores >= 1
    assert set(machine.flags) <= set(RELEVANT_FLAGS)
    assert {"python", "torch", "onnxruntime", "onnx"} <= set(machine.versions)


def test_reads_the_first_x86_cpu() -> None:
    name, flags = parse_cpuinfo(
        "processor\t: 0\nmodel name\t: First\nflags\t\t: sse avx2\n\nprocessor\t: 1\nmodel name\t: Second\nflags\t\t:\n"
    )
    assert name == "First"
    assert flags == {"sse", "avx2"}


def test_reads_arm_features() -> None:
    assert parse_cpuinfo("processor : 0\nFeatures : fp asimd i8mm\n") == ("", {"fp", "asimd", "i8mm"})


def test_only_x86_without_vnni_saturates() -> None:
    def machine(*flags: str) -> Machine:
        return Machine("cpu", flags, 1, "Linux", {})

    assert saturates_int8(machine("avx2", "avx512f"))
    assert not saturates_int8(machine("avx2", "avx_vnni"))
    assert not saturates_int8(machine("asimd"))
