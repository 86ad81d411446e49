"""The registers of Unicorn's core are where they are looked for."""

from __future__ import annotations

import ctypes
import platform

import pytest
from unicorn import Uc, unicorn_const
from unicorn import arm_const as arm

from hil.virtual.engine_state import find_engine_state


@pytest.mark.parametrize("core", [arm.UC_CPU_ARM_CORTEX_M4, arm.UC_CPU_ARM_CORTEX_M7])
def test_registers_it_state_and_flag_are_found_each_time(core):
    mode = unicorn_const.UC_MODE_THUMB | unicorn_const.UC_MODE_MCLASS
    for number in range(20):  # memory of cores that are gone holds copies of their registers
        engine = Uc(unicorn_const.UC_ARCH_ARM, mode)
        engine.ctl_set_cpu_model(core)

        state = find_engine_state(engine)
        engine.reg_write(arm.UC_ARM_REG_R7, 1000 + number)
        engine.reg_write(arm.UC_ARM_REG_XPSR, 1 << 24 | 1 << 10)  # IT[2]

        assert ctypes.c_uint32.from_address(state.registers + 4 * 7).value == 1000 + number
        assert ctypes.c_uint32.from_address(state.it_state).value == 1 << 2
        assert state.keeps_pc is not None or platform.machine() != "x86_64"
        assert state.keeps_pc is None or ctypes.c_uint8.from_address(state.keeps_pc).value == 0
