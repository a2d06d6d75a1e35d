"""ViT: equality with torchvision, the position table, first weights, frozen patches, attention, refusals."""
import copy

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from simsiam_explained.collapse import measure_layers
from simsiam_explained.evidence import Near, decide
from simsiam_explained.images import textures
from simsiam_explained.memory import in_eval
from simsiam_explained.patchwork import assemble, attention_maps, patches, shuffle_patches
from simsiam_explained.probes import features, settle_bn, untrained
from simsiam_explained.recipe import Recipe, base
from simsiam_explained.simsiam import SimSiam
from simsiam_explained.training import fit
from simsiam_explained.views import make_views
from simsiam_explained.vit import CLAIMS, FULL, POSITIONS, STEMS, TINY, ViT, sincos, vit

TOY = dict(shape=(3, 16, 16), patch=4, width=24, depth=2, heads=3, seed=0)


def count(net):
    return sum(w.numel() for w in net.parameters())


def toy(**changes) -> ViT:
    return vit(**TOY | changes)


def pictures(n=4, side=16, channels=3, seed=0):
    return torch.randn(n, channels, side, side, generator=torch.Generator().manual_seed(seed))


# --- equal to torchvision -------------------------------------------------------------------------------------------

def copied(net, theirs):
    """Give torchvision's ViT the weights of ours."""
    state = net.state_dict()
    theirs.load_state_dict({
        "class_token": state["stem.token"], "encoder.pos_embedding": net.stem.position.detach(),
        "conv_proj.weight": state["stem.projection.0.weight"], "conv_proj.bias": state["stem.projection.0.bias"],
        "encoder.ln.weight": state["norm.weight"], "encoder.ln.bias": state["norm.bias"]} | {
        f"encoder.layers.encoder_layer_{k}.{there}": state[f"layer{k + 1}.{here}"]
        for k in range(len(net.layers)) for part in ("weight", "bias") for there, here in (
            (f"ln_1.{part}", f"norm1.{part}"), (f"ln_2.{part}", f"norm2.{part}"),
            (f"self_attention.in_proj_{part}", f"attention.qkv.{part}"),
            (f"self_attention.out_proj.{part}", f"attention.out.{part}"),
            (f"mlp.0.{part}", f"mlp.0.{part}"), (f"mlp.3.{part}", f"mlp.2.{part}"))})


@pytest.mark.parametrize("position", ["sincos", "learned"])
def test_equals_torchvision_on_copied_weights(position, device):
    net = vit((3, 32, 32), patch=8, width=24, depth=3, heads=3, position=position, seed=0)
    generator = torch.Generator().manual_seed(1)
    for w in net.parameters():        # norms and biases too, so that a swapped pair would show
        w.data += 0.1 * torch.randn(w.shape, generator=generator)
    theirs = torchvision.models.VisionTransformer(32, 8, 3, 3, 24, 96)
    theirs.heads = nn.Identity()
    copied(net, theirs)
    x = pictures(5, 32).to(device)
    net, theirs = net.to(device), theirs.to(device)
    for train in (True, False):
        torch.testing.assert_close(net.train(train)(x), theirs.train(train)(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kwargs, millions", [
    (dict(shape=(3, 224, 224), patch=16, width=384), 21.67),              # ViT-S: 22 M (MoCo v3 §5), DeiT-S without its head
    (dict(shape=(3, 224, 224), patch=16, width=768), 85.80),              # ViT-B: torchvision's 86.57 M less the head
])
def test_parameter_counts_of_the_paper(kwargs, millions):
    with torch.device("meta"):
        assert count(vit(**kwargs, position="learned")) / 1e6 == pytest.approx(millions, abs=0.01)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("pool", ["token", "mean"])
def test_number_of_parameters_by_formula(position, pool):
    d, n, depth, inputs = 24, 16, 2, 48
    block = (d + 1) * 3 * d + (d + 1) * d + (d + 1) * 4 * d + (4 * d + 1) * d + 4 * d
    token = d * (pool == "token")
    places = (n + (pool == "token")) * d * (position == "learned")
    assert count(toy(position=position, pool=pool)) == depth * block + (inputs + 1) * d + 2 * d + token + places


# --- the position table ---------------------------------------------------------------------------------------------

def test_position_table_of_sines_and_cosines(device):
    width, rows, columns = 32, 5, 7
    table = sincos(rows, columns, width)
    for r in range(rows):                                          # entry by entry, as MoCo v3's code fills it
        for c in range(columns):
            for i in range(width // 4):
                w = 10_000 ** (-i / (width // 4))
                want = torch.tensor([r * w, r * w, c * w, c * w], dtype=torch.float64)
                want = torch.stack([want[0].sin(), want[1].cos(), want[2].sin(), want[3].cos()])
                torch.testing.assert_close(table[r * columns + c].view(4, -1)[:, i].double(), want, rtol=0, atol=1e-6)
    torch.testing.assert_close(table.norm(dim=1), torch.full((35,), (width / 2) ** 0.5), rtol=1e-6, atol=0)
    alike = F.normalize(table, dim=1) @ F.normalize(table, dim=1).T
    assert alike.fill_diagonal_(0).max() < 0.99                    # no two patches share a place
    assert alike[0, 8] == pytest.approx(alike[9, 17].item(), abs=1e-6)     # only the step between them counts
    net = vit((3, 20, 28), 4, width, 1, 4, seed=0).to(device)
    assert torch.equal(net.stem.position[0, 1:].cpu(), table)
    assert not net.stem.position[0, 0].any()                       # the class token has no place
    before = net.stem.position.clone()
    optimiser = torch.optim.AdamW(net.parameters(), 0.1, weight_decay=0.5)
    net(pictures(2, 28)[:, :, :20].to(device)).sum().backward()
    optimiser.step()
    assert torch.equal(net.stem.position, before) and not any("position" in name for name, _ in net.named_parameters())


def test_a_place_is_zero_for_no_patch_token_only():
    assert toy(pool="mean").stem.position.shape == (1, 16, 24) and toy(pool="mean").stem.token is None
    assert toy(position="learned").stem.position.shape == (1, 17, 24)
    assert toy(position="none").stem.position is None


# --- first weights --------------------------------------------------------------------------------------------------

def test_first_weights_follow_moco_v3():
    net = vit((3, 32, 32), 4, 192, 2, 12, seed=0)
    weights = dict(net.named_parameters())
    for name, weight in weights.items():
        d_in = weight[0].numel()
        if "norm" in name or name.endswith("bias"):
            assert torch.equal(weight, torch.full_like(weight, float("norm" in name and name.endswith("weight"))))
        elif "token" in name:
            assert weight.std().item() == pytest.approx(1e-6, rel=0.2)
        else:
            d_out = 192 if "qkv" in name else len(weight)
            bound = (6 / (d_in + d_out)) ** 0.5
            assert 0.98 * bound < weight.abs().max() <= bound and weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.02)
    assert weights["stem.projection.0.weight"].abs().max().item() == pytest.approx(0.158, abs=0.001)   # √(6/(3·4² + 192))


def test_learned_places_begin_as_vits():
    places = vit((3, 32, 32), 4, 192, 1, 12, position="learned", seed=0).stem.position
    assert places.requires_grad and places.std().item() == pytest.approx(0.02, rel=0.05) and abs(places.mean()) < 1e-3


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    one, two, other = (toy(seed=s).state_dict() for s in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[k], two[k]) for k in one) and not all(torch.equal(one[k], other[k]) for k in one)


# --- stems ----------------------------------------------------------------------------------------------------------

def test_a_frozen_patch_projection_stays_to_the_bit_under_adamw_with_decay(device):
    net = toy(stem="frozen").to(device)
    start = copy.deepcopy(net)
    optimiser = torch.optim.AdamW(net.parameters(), 1e-2, weight_decay=0.5)      # all weights, frozen ones too
    for _ in range(3):
        optimiser.zero_grad(set_to_none=False)
        net(pictures().to(device)).square().sum().backward()
        optimiser.step()
    moved = {name: not torch.equal(w, dict(start.named_parameters())[name]) for name, w in net.named_parameters()}
    assert {name for name in moved if not moved[name]} == {"stem.projection.0.weight", "stem.projection.0.bias"}


def test_a_frozen_stem_starts_as_the_learned_one():
    for a, b in zip(toy().parameters(), toy(stem="frozen").parameters(), strict=True):
        assert torch.equal(a, b)


def test_convolutional_stem_is_one_block_fewer():
    net = vit((3, 64, 64), 16, 64, 4, 4, stem="conv", seed=0)
    convs = [m for m in net.stem.modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convs] == [8, 16, 32, 64, 64] and [m.stride for m in convs] == [(2, 2)] * 4 + [(1, 1)]
    assert net.layers == ("layer1", "layer2", "layer3") and net(pictures(2, 64)).shape == (2, 64)


def test_weight_norm_and_batch_norm_of_the_patch_projection():
    x = pictures()
    torch.testing.assert_close(toy(stem="patch weight norm")(x), toy()(x), rtol=1e-5, atol=1e-6)    # the same at the start
    net = toy(stem="patch BN").train()
    tokens = net.stem.projection(x)
    torch.testing.assert_close(tokens.mean((0, 2, 3)), torch.zeros(24), rtol=0, atol=1e-5)


# --- attention, patches ---------------------------------------------------------------------------------------------

def test_attention_equals_a_naive_loop(device):
    attention, x = toy().to(device).layer1.attention, torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(0))
    nn.init.normal_(attention.qkv.bias)
    x = x.to(device)
    q, k, v = (part.view(2, 7, 3, 8) for part in attention.qkv(x).split(24, dim=2))
    want, looks = torch.zeros_like(x), attention.weights(x)
    for b in range(2):
        for h in range(3):
            for t in range(7):
                score = torch.stack([(q[b, t, h] * k[b, s, h]).sum() for s in range(7)]) / 8**0.5
                weight = score.exp() / score.exp().sum()
                torch.testing.assert_close(looks[b, h, t], weight, rtol=1e-5, atol=1e-6)
                want[b, t, 8 * h:8 * h + 8] = weight @ v[b, :, h]
    torch.testing.assert_close(attention(x), attention.out(want), rtol=1e-4, atol=1e-5)


def test_attention_maps_are_those_of_the_forward_pass():
    net, x = toy().eval(), pictures()
    maps = attention_maps(net, x)
    assert maps.shape == (2, 4, 3, 17, 17)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 4, 3, 17))
    second = {}
    net.layer2.norm1.register_forward_hook(lambda m, i, out: second.update(x=out))
    net(x)
    torch.testing.assert_close(maps[1], net.layer2.attention.weights(second["x"]))
    with pytest.raises(ValueError, match="position table"):
        attention_maps(net, pictures(side=20))
    assert not any(block.attention._forward_hooks for block in (net.layer1, net.layer2))     # nothing stays behind


def test_without_places_a_transformer_reads_a_bag_of_patches(device):
    x = pictures(2).to(device)
    mixed = shuffle_patches(x, 4, torch.Generator(device).manual_seed(0))
    assert not torch.equal(x, mixed)
    for pool in ("token", "mean"):
        net = toy(position="none", pool=pool).to(device)
        torch.testing.assert_close(net(x), net(mixed), rtol=1e-4, atol=1e-5)
        placed = toy(position="sincos", pool=pool).to(device)
        assert (placed(x) - placed(mixed)).abs().max() > 0.01


def test_patches_are_cut_row_by_row_and_put_together_again():
    x = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12)
    tiles = patches(x, 4)
    assert tiles.shape == (2, 6, 3, 4, 4) and torch.equal(tiles[1, 4], x[1, :, 4:, 4:8])
    assert torch.equal(assemble(tiles, 2), x)
    mixed = shuffle_patches(x, 4, torch.Generator().manual_seed(0))
    rows = patches(mixed, 4).flatten(2)
    for b in range(2):                                             # the same patches, in an order of its own
        assert sorted(map(tuple, rows[b].tolist())) == sorted(map(tuple, tiles[b].flatten(1).tolist()))
    assert not torch.equal(rows[0].argsort(0), rows[1].argsort(0)) and not torch.equal(mixed, x)


# --- as a backbone --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("stem", STEMS)
def test_every_stem_trains_in_a_recipe(stem):
    net = {"patch": 4, "width": 16, "depth": 2, "heads": 2, "stem": stem, "position": "learned"}
    method = base("small").but(images="textures", views="textures", size=16, backbone="vit.vit", net=net).build(5)
    views, images = make_views("textures"), textures(64, 16, seed=0)
    fresh = untrained(method, images, views, batches=2, batch=32)
    run = fit(method, images, views, steps=2, batch=32, base_lr=0.1, device="cpu", progress=False)
    assert run.status == "done" and features(fresh, images, views).shape == (64, 16)


def test_pool_and_norm_decide_what_is_handed_on():
    x = pictures()
    for pool in ("token", "mean"):
        net, bare = toy(pool=pool), toy(pool=pool, final_norm=False)
        seen = {}
        for name in ("layer2", "norm"):
            getattr(net, name).register_forward_hook(lambda m, i, out, name=name: seen.update({name: out}))
        y = net(x)
        pick = (lambda t: t[:, 0]) if pool == "token" else (lambda t: t.mean(1))
        assert torch.equal(y, pick(seen["norm"]))
        torch.testing.assert_close(bare(x), pick(seen["layer2"]))
    assert abs(net(x).mean(1)).max() < 1e-5 < abs(bare(x).mean(1)).max()       # a LayerNorm takes each token's mean away


def test_layers_are_measured_one_by_one():
    method = SimSiam(toy(shape=(1, 16, 16)), dim=16, shape=(1, 16, 16))
    found = measure_layers(method, textures(64, 16, seed=0), make_views("textures"))
    assert list(found) == ["stem", "layer1", "layer2", "backbone", "projector"] and found["layer1"].d == 24


def test_channels_last_and_bfloat16(device):
    net, x = toy().to(device), pictures().to(device)
    plain = net(x)
    torch.testing.assert_close(net(x.contiguous(memory_format=torch.channels_last)), plain, rtol=1e-4, atol=1e-5)
    with torch.autocast(device.type, torch.bfloat16):
        half = net(x)
    assert (half.float() - plain).norm() < 0.05 * plain.norm()


@pytest.mark.parametrize("position", POSITIONS)
def test_tokens_are_as_wide_as_the_weights_under_autocast_with_places_and_without(position):
    stem, x = toy(position=position).stem, pictures()
    with torch.autocast("cpu", torch.bfloat16):
        assert stem(x).dtype == torch.float32
    assert stem.double()(x.double()).dtype == torch.float64


@pytest.mark.slow
def test_compiles():
    net, x = toy(), pictures()
    torch.testing.assert_close(torch.compile(net)(x), net(x), rtol=1e-4, atol=1e-5)


def test_a_recipe_gives_shape_and_seed():
    recipe = Recipe(size=24, backbone="vit.vit", net={"width": 16, "depth": 2, "heads": 2})
    method = recipe.build(1)
    assert method.backbone.shape == (3, 24, 24)
    again = vit((3, 24, 24), 4, 16, 2, 2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(method.backbone.parameters(), again.parameters()))
    assert Recipe(**recipe.whole()) == recipe and "vit.vit" in str(recipe)


def test_without_places_any_size_of_whole_patches_goes():
    net = toy(position="none")
    with in_eval(net):
        assert net(pictures(2, 24)).shape == (2, 24)


# --- refusals -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kwargs, words", [
    (dict(patch=5), "patch: got 5 for images of 16 × 16"),
    (dict(heads=5), "heads: got 5 for width 24"),
    (dict(width=26, heads=2), "multiple of 4"),
    (dict(position="sincoss"), "'sincos'"),
    (dict(pool="tokens"), "'token'"),
    (dict(stem="freeze"), "'frozen'"),
    (dict(shape=(16, 16)), r"expected \(C, H, W\)"),
    (dict(depth=0), "depth"),
    (dict(stem="conv", patch=1), "patch 1 "),
    (dict(stem="conv", patch=16, width=36, heads=2), "width 36"),
])
def test_refusals_of_what_does_not_fit(kwargs, words):
    with pytest.raises(ValueError, match=words):
        toy(**kwargs)


def test_refusals_of_images():
    with pytest.raises(ValueError, match="position table was made for 16 × 16"):
        toy()(pictures(2, 20))
    with pytest.raises(ValueError, match="multiples of the patch, 4"):
        toy(position="none")(pictures(2, 18))
    with pytest.raises(ValueError, match=r"expected \(B, 3, 16, 16\)"):
        toy()(pictures(2, channels=1))
    with pytest.raises(TypeError, match="views.clean"):
        toy()(pictures(2).byte())
    with pytest.raises(ValueError, match="must divide both"):
        patches(pictures(), 5)


# --- claims ---------------------------------------------------------------------------------------------------------

BY_ID = {claim.id: claim for claim in CLAIMS}
MEANS = {  # linear accuracies with which each claim holds
    "moco_v3-10": {"ViT": 0.5, "no places": 0.48},
    "moco_v3-10-learned": {"ViT": 0.5, "learned places": 0.495},
    "moco_v3-11": {"ViT": 0.5, "mean without LayerNorm": 0.505},
    "moco_v3-11-norm": {"mean after LayerNorm": 0.4, "mean without LayerNorm": 0.5},
    "moco_v3-22": {"ViT": 0.8, "ResNet-18": 0.9},
}


@pytest.mark.parametrize("name", MEANS)
def test_a_rule_holds_for_what_the_paper_saw_and_not_for_swapped_arms(name):
    (condition,), means = BY_ID[name].rule, MEANS[name]
    rows = {arm: [{"linear": mean + 0.001 * seed} for seed in range(3)] for arm, mean in means.items()}
    assert decide(BY_ID[name].rule, rows)[0] == "direction reproduced" and set(means) == set(BY_ID[name].arms)
    a, b = (condition.arm, condition.to) if isinstance(condition, Near) else (condition.arm, condition.than)
    other = {a: [{"linear": row["linear"] + 0.02} for row in rows[b]]} if isinstance(condition, Near) else {a: rows[b], b: rows[a]}
    assert decide(BY_ID[name].rule, rows | other)[0] == "contradicted"


def test_claims_have_their_recipes_and_an_exact_one_its_test():
    assert set(BY_ID) == {*MEANS, "moco_v3-19"} and BY_ID["moco_v3-19"].test == "test_vit.py::" + (
        test_position_table_of_sines_and_cosines.__name__)
    for claim in CLAIMS:
        for scale in claim.scales if claim.arms else ():
            for arm, recipe in claim.recipes(scale).items():
                assert recipe.method == "moco_v3.MoCoV3" and (recipe.backbone == "vit.vit") == (arm != "ResNet-18")
                assert recipe.build(0).backbone.dim == {"small": 48, "full": 192}[scale] or arm == "ResNet-18"
    keys = {recipe.key for claim in CLAIMS for recipe in claim.recipes("small").values()}
    assert len(keys) == 5                                              # one baseline for all claims
    assert base("small").but(**TINY).key in keys and base("full").but(**FULL).batch == 512
