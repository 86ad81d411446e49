"""Virtual boards: the real board's ELF on an emulated core with its memory, peripherals and time.

In the order in which a run passes through them: `memory` (address ranges and their bytes), `image`
(an ELF file), `blocks` (native counts of executed basic blocks), `timing/` (what a block costs),
`peripherals/` (the chip's registers), `exceptions` (faults as the core delivers them),
`semihosting`, `cpu` (all of these around Unicorn, in this process), `program` (a short program on
it), `server` with `uart` (a board as a process of its own, with a pty), `place` (how the rig sees
that process), `run` (any ELF on it). README.md says what is modelled and what is not.
"""
