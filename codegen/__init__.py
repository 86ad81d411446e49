"""A `.tflite` from anywhere, untrusted, to readable C whose outputs equal TFLM's bit for bit.

In the order in which data passes through: tflite_file, import_ops and import_tflite give a Graph
(ir); check holds its rules; passes make it smaller; kernels offers the C for each op, with numbers
from requantization; choice picks one for each op and perhaps strips of rows (patching), or a
plan_file does; schedule, liveness and planner give an order and an arena; placement says in which
memory constants lie; sharing and calls keep the C short; emit writes the files. generate is the
entry point for all engines. Beside the flow: reference computes a Graph in numpy with the constants
of fixed_point, export_tflite writes one back to a file, cases makes a program of single layers. See
codegen/README.md.
"""
