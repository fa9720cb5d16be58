"""Print the environment in which this processor stands for the other kind, for `env`: `make other-processor`.

One that multiplies bf16 keeps to AVX2 and does without; any other is taken to multiply it, and emulates it.
"""

from deepres.runtime.processor import VARIABLE, multiplies_bf16


def main():
    if multiplies_bf16():
        print(f"{VARIABLE}=0 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2")
    else:
        print(f"{VARIABLE}=1")


if __name__ == "__main__":
    main()
