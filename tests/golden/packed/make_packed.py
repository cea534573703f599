"""Packed pico checkpoints and what they hold, computed with torch and numpy, never with moue.

    python make_packed.py FAMILIES OUT      FAMILIES: tests/golden/families

OUT/fp8      deepseek_v3 with every matrix that a release has in FP8 as F8_E4M3 and a float32 factor for each square
OUT/mxfp4    gpt_oss with H = I = 32, experts as the hub has them: FP4 blocks and E8M0 scales
OUT/*_plain  the same models with those tensors unpacked to float32
"""
import argparse, json
from pathlib import Path
import numpy as np
import torch
from safetensors.torch import load_file, save_file

BLOCK = [16, 8]
FP4 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)


def load(folder):
    tensors = {}
    for file in sorted(folder.glob("model*.safetensors")):
        tensors.update(load_file(file))
    return tensors, json.loads((folder / "config.json").read_text())


def save(folder, tensors, config):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous() for k, v in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def quantise(w):
    """F8_E4M3 with one factor for each square of BLOCK; the last ones may be cut off."""
    rows, columns = -(-w.shape[0] // BLOCK[0]), -(-w.shape[1] // BLOCK[1])
    scale, packed, plain = torch.empty(rows, columns), torch.empty_like(w, dtype=torch.float8_e4m3fn), torch.empty_like(w)
    for i in range(rows):
        for j in range(columns):
            at = (slice(i * BLOCK[0], (i + 1) * BLOCK[0]), slice(j * BLOCK[1], (j + 1) * BLOCK[1]))
            scale[i, j] = w[at].abs().max() / 448 * (1 + 0.01 * (i + j))
            packed[at] = (w[at] / scale[i, j]).to(torch.float8_e4m3fn)
            plain[at] = packed[at].float() * scale[i, j]
    return packed, scale, plain


def fp8(families, out):
    tensors, config = load(families / "deepseek_v3")
    packed, plain = {}, {}
    for name, w in tensors.items():
        keeps = w.ndim < 2 or any(part in name for part in ("embed", "lm_head", "mlp.gate.weight", "norm"))
        if keeps:
            packed[name] = plain[name] = w
            continue
        packed[name], packed[name + "_scale_inv"], plain[name] = quantise(w)
    save(out / "fp8_plain", plain, config)
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": BLOCK}
    save(out / "fp8", packed, config)


def mxfp4_values(blocks, scales):
    """[..., groups, 16] bytes and [..., groups] exponents -> [..., groups * 32]."""
    nibbles = np.stack([blocks & 15, blocks >> 4], -1).reshape(*blocks.shape[:-1], 32)
    values = FP4[nibbles] * np.exp2(scales.astype(np.float32) - 127)[..., None]
    return torch.from_numpy(values.reshape(*blocks.shape[:-2], -1).astype(np.float32))


def mxfp4(families, out):
    tensors, config = load(families / "gpt_oss")
    H = I = 32
    E, K, A, D = 5, 2, config["num_attention_heads"], config["head_dim"]
    config.update(hidden_size=H, intermediate_size=I, num_hidden_layers=2, layer_types=["sliding_attention", "full_attention"])
    g, rng = torch.Generator().manual_seed(3), np.random.default_rng(3)
    draw = lambda *shape: torch.randn(*shape, generator=g) * 0.3
    common = {"model.embed_tokens.weight": draw(61, H), "model.norm.weight": 1 + draw(H), "lm_head.weight": draw(61, H)}
    packed, plain = {}, {}
    for layer in range(2):
        p = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm"):
            common[p + name + ".weight"] = 1 + draw(H)
        for name, rows, columns in (("q", A * D, H), ("k", K * D, H), ("v", K * D, H), ("o", H, A * D)):
            common[p + f"self_attn.{name}_proj.weight"], common[p + f"self_attn.{name}_proj.bias"] = draw(rows, columns), draw(rows)
        common[p + "self_attn.sinks"] = draw(A)
        common[p + "mlp.router.weight"], common[p + "mlp.router.bias"] = draw(E, H), draw(E)
        for name, rows, columns in (("gate_up_proj", 2 * I, H), ("down_proj", H, I)):
            common[p + f"mlp.experts.{name}_bias"] = draw(E, rows)
            blocks = rng.integers(0, 256, (E, rows, columns // 32, 16), dtype=np.uint8)
            scales = rng.integers(122, 127, (E, rows, columns // 32), dtype=np.uint8)
            packed[p + f"mlp.experts.{name}_blocks"], packed[p + f"mlp.experts.{name}_scales"] = map(torch.from_numpy, (blocks, scales))
            plain[p + f"mlp.experts.{name}"] = mxfp4_values(blocks, scales).transpose(1, 2)  # [E, in, out]
    save(out / "mxfp4_plain", {**common, **plain}, config)
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"]}
    save(out / "mxfp4", {**common, **packed}, config)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", type=Path)
    parser.add_argument("out", type=Path)
    a = parser.parse_args()
    fp8(a.families, a.out)
    mxfp4(a.families, a.out)


main()
