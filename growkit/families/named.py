"""Sizes that people know by name, for `growkit grow --like`: family, hidden, heads, kv heads, ffn, layers. Data
only.
"""

_TABLE = """
bert-tiny       bert      128   2   2    512   2
bert-mini       bert      256   4   4   1024   4
bert-small      bert      512   8   8   2048   4
bert-medium     bert      512   8   8   2048   8
bert-base       bert      768  12  12   3072  12
bert-large      bert     1024  16  16   4096  24
roberta-base    roberta   768  12  12   3072  12
roberta-large   roberta  1024  16  16   4096  24
gpt2            gpt2      768  12  12   3072  12
gpt2-medium     gpt2     1024  16  16   4096  24
gpt2-large      gpt2     1280  20  20   5120  36
gpt2-xl         gpt2     1600  25  25   6400  48
opt-125m        opt       768  12  12   3072  12
opt-1.3b        opt      2048  32  32   8192  24
opt-2.7b        opt      2560  32  32  10240  32
opt-6.7b        opt      4096  32  32  16384  32
pythia-160m     gpt_neox  768  12  12   3072  12
pythia-410m     gpt_neox 1024  16  16   4096  24
pythia-1.4b     gpt_neox 2048  16  16   8192  24
pythia-2.8b     gpt_neox 2560  32  32  10240  32
pythia-6.9b     gpt_neox 4096  32  32  16384  32
tinyllama-1.1b  llama    2048  32   4   5632  22
llama-2-7b      llama    4096  32  32  11008  32
llama-2-13b     llama    5120  40  40  13824  40
llama-3-8b      llama    4096  32   8  14336  32
qwen2.5-0.5b    qwen2     896  14   2   4864  24
qwen2.5-1.5b    qwen2    1536  12   2   8960  28
qwen2.5-7b      qwen2    3584  28   4  18944  28
"""
_AXES = ("hidden", "head", "kv_head", "ffn", "layer")

# name -> (family, sizes by axis)
NAMED: dict[str, tuple[str, dict[str, int]]] = {
    name: (family, dict(zip(_AXES, map(int, sizes))))
    for name, family, *sizes in (line.split() for line in _TABLE.strip().splitlines())
}
