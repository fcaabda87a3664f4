"""How the bus is configured."""

import pytest
from pydantic import ValidationError

from bus.settings import BusSettings


def test_every_setting_has_a_default_and_says_what_it_does():
    for name, field in BusSettings.model_fields.items():
        assert not field.is_required(), name
        assert field.description, name


@pytest.mark.parametrize("url", ["127.0.0.1:4222", "http://broker", "nats://", "nats://a,b"])
def test_an_address_that_is_no_nats_url_is_refused_with_the_field(url):
    with pytest.raises(ValidationError, match=r"nats_url\n.*is not a URL such as nats://host:4222"):
        BusSettings(nats_url=url)


def test_several_brokers_are_a_list():
    assert BusSettings(nats_url="nats://a:4222, tls://b:4223").nats_url


def test_a_setting_that_does_not_exist_is_refused():
    with pytest.raises(ValidationError, match="nats_uri"):
        BusSettings.model_validate({"nats_uri": "nats://a"})


def test_the_password_is_not_shown():
    assert "s3cret" not in repr(BusSettings(nats_password="s3cret"))
