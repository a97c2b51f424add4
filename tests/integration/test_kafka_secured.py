"""A Kafka that speaks TLS and wants a password, as aiokafka meets it."""

import asyncio
import gc
import ssl
import warnings

import pytest
import trustme
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError
from support.kafka_secured import MECHANISMS, Secured

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def secured():
    """A broker for this module."""
    with Secured() as cluster:
        yield cluster


def refusal(**connection) -> str:
    """Why a client cannot connect. aiokafka leaves the refused connection to the garbage collector, with a warning."""

    async def connect() -> str:
        producer = AIOKafkaProducer(**connection)
        try:
            await producer.start()
        except KafkaConnectionError as error:
            return str(error)
        finally:
            await producer.stop()
        return ""

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        reason = asyncio.run(connect())
        gc.collect()
    return reason


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_user_with_a_password(secured, mechanism, caplog):
    """Who knows the password writes. Who does not is refused, and only the log of aiokafka says why."""
    topic = secured.topic()

    async def write():
        async with AIOKafkaProducer(**secured.as_user(mechanism), acks="all") as producer:
            await producer.send_and_wait(topic, mechanism.encode())

    asyncio.run(write())
    assert secured.values(topic) == [mechanism.encode()]
    assert "Unable to bootstrap" in refusal(**secured.as_user(mechanism, "wrong"))
    assert "SaslAuthenticationFailed" in caplog.text


def test_a_broker_of_another_authority(secured, caplog):
    """A certificate that nobody vouches for is refused."""
    stranger = ssl.create_default_context(cadata=trustme.CA().cert_pem.bytes().decode())
    assert "Unable to bootstrap" in refusal(**{**secured.as_user("PLAIN"), "ssl_context": stranger})
    assert "certificate verify failed" in caplog.text


def test_nobody_gets_in_without_a_password(secured):
    """TLS alone does not open the door."""
    alone = {**secured.as_user("PLAIN"), "security_protocol": "SSL"}
    assert "Unable to bootstrap" in refusal(**alone)
