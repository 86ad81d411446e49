"""A `.tflite` from anywhere, untrusted, to readable C whose outputs equal TFLM's bit for bit.

In the order in which data passes through: tflite_file, import_ops and import_tflite give a Graph
(ir); check holds its rules; passes make it smaller; kernels offers the C for each op; schedule,
liveness and planner give an order and an arena; emit writes the files. generate is the entry point
for all engines. Beside the flow: reference computes a Graph in numpy with the constants of
fixed_point, export_tflite writes one back to a file. See codegen/README.md.
"""
