"""The rig: from a folder of C to a record of what a board measured.

In the order in which data passes through them: `board`, `lab`, `hardware` (what there is); `build`
(PlatformIO), `flash` with `flash_tools` and `pyocd_flash`, `link` and `wire` (serial port and
protocol), `inputs` and `expected` (what is fed, and the oracle's answers), `session` (one
measurement), `energy` and `meters` (what it draws), `record` and `stats`, `bench` (models times
engines times places), `store` and `studies` (SQLite), `fronts`, `report` and `plot` (tables),
`memory_plot` (what lies in an arena when), `cli`. `child` runs tools that may hang; `closing` is
the base of what ends with a `with`.
The lab: `ports` (serial ports by names that stay), `power` (switches), `locks` (one user at a
time), `lab_scan` and `lab_check` (what is plugged in, whether it works). Many places: `where`
(which may run what), `rig` (a worker for each), `live` (what they do), `queues` (benches that can
be gone on with). Faults: `recovery`, `proof` (a firmware that is known to be good), `health` (the
ledger).
The best network by measurement: `timings` and `tuning` (layers alone), `compose` (networks of
them), `tune`. Virtual boards are in `virtual`; `microbenchmarks`, `calibrate`, `fitting` and
`calibration` fit their timing to real ones. Where their cycles go: `profile_source` and
`profile_dwarf` (what the ELF says), `profile_collect` and `profile_run` (counts of one inference),
`profile` (who pays), `profile_report`, `profile_annotate` and `speedscope`. MLPerf Tiny's rules:
`mlperf_data`, `mlperf`, `mlperf_files`.

Not here: graphs but for tuning, and C (codegen), architectures and training (search).
"""
