"""Virtual boards: the ELF of the real board on an emulated core, with the board's memory map, peripherals and a cycle model.

In the order in which a run passes through them: `memory` (address ranges and their bytes), `image` (an ELF file),
`blocks` (native counts of executed basic blocks), `timing/` (what a block costs), `peripherals/` (the chip's registers),
`exceptions` (faults as the core delivers them), `semihosting`, `cpu` (all of these around Unicorn, in this process),
`server` with `uart` (a board as a process of its own, with a pty), `place` (how the rig sees that process), `run` (any ELF).
"""
