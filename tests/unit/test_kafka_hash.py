"""Keys go to the partitions that Kafka's own producers choose."""

import pytest
from aiokafka import partitioner
from hypothesis import given
from hypothesis import strategies as st

from filter.kafka_hash import murmur2


@pytest.mark.parametrize(
    ("key", "found"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_the_values_that_kafka_tests_its_own_with(key: bytes, found: int) -> None:
    """As in UtilsTest.testMurmur2 of Apache Kafka, with the sign taken off as its partitioner does."""
    assert murmur2(key) == found & 0x7FFFFFFF


@given(st.binary(max_size=70))
def test_any_key_as_the_client_library_has_it(key: bytes) -> None:
    """Whatever the length, it is the same hash."""
    assert murmur2(key) == partitioner.murmur2(key) & 0x7FFFFFFF
