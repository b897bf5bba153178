from tests.methods.helpers import learn, stages


def test_each_earlier_update_has_a_magnitude_that_is_trained(llama, tmp_path):
    settings = {"learning_rate": 1e-2, "rank": 2, "epochs": 1, "count": 8}
    learn(llama, tmp_path, "sd-lora", **settings)
    scales = [record.notes.get("scales") for record in stages(tmp_path)]
    assert scales[0] is None
    assert [len(found) for found in scales[1:]] == [1, 2]
    assert all(scale != 1 for found in scales[1:] for scale in found)
