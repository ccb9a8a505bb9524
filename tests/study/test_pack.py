"""A finished run as one small file."""

import pytest
import torch
from test_pretrained import SMALL

import attnet
from attnet.base.errors import AttnetError
from attnet.engine import run_folder as checkpoint
from attnet.masks.capture import capture
from attnet.model.pretrained import load_pretrained
from attnet.study import pack


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> attnet.Result:
    return attnet.fit(attnet.TrainConfig(**SMALL, output_dir=str(tmp_path_factory.mktemp("runs") / "plain")))


def test_packed_weights_are_small_and_give_the_same_answers(run, tmp_path, capsys):
    file = tmp_path / "packed.pt"
    assert pack.main([str(run.output_dir), str(file)]) == 0
    assert "packed.pt: 1." in capsys.readouterr().out
    content = torch.load(file, weights_only=True)
    assert content["result"]["top1"] == run.top1 and content["config"]["recipe"] == "seed"
    assert {v.dtype for n, v in content["model"].items() if n.endswith("weight")} == {torch.float16}
    assert file.stat().st_size < 0.62 * (run.output_dir / "best.pt").stat().st_size
    images = torch.rand(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours, packed = (capture(load_pretrained(path).model, images).logits for path in (run.output_dir, file))
    torch.testing.assert_close(packed, ours, rtol=0, atol=0.02 * float(ours.std()))


def test_packing_refuses_what_it_would_spoil(run, tmp_path, capsys):
    assert pack.main([str(tmp_path), str(tmp_path / "x.pt")]) == 2
    assert "not a finished run's folder" in capsys.readouterr().err
    spoilt = tmp_path / "spoilt"
    spoilt.mkdir()
    for name in ("config.json", "result.json", "metrics.jsonl"):
        (spoilt / name).write_bytes((run.output_dir / name).read_bytes())
    content = torch.load(run.output_dir / "best.pt", weights_only=True)
    content["model"]["fc.weight"][0, 0] = 1e6
    checkpoint.save(content, spoilt / "best.pt")
    with pytest.raises(AttnetError, match=r"fc\.weight exceeds what half precision holds"):
        pack.pack(spoilt, tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()
