from gmmcli.attacks.attack import Attack


def test_names_say_kind_and_loss() -> None:
    assert Attack("apgd", "dlr-targeted").name == "apgd-dlr-targeted"
    assert Attack("square", "margin").name == "square"
