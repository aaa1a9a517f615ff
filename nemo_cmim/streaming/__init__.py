"""Generation from files of any size in constant memory: what `nemo-cmim decode | sample | interpolate | optimize | score` do."""
