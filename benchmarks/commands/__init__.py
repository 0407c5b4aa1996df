"""The commands of the benchmarks: one file each."""
