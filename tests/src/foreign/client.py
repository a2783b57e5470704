"""A client of confluent-kafka: bootstrap, command, topic, and what the command takes; lines on standard input."""

import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap, command, topic, *rest = sys.argv[1:]
base = {"bootstrap.servers": bootstrap, "log_level": 2}


def fail(error, _message):
    if error is not None:
        sys.exit(f"not delivered: {error}")


def send(producer):
    for line in sys.stdin.read().splitlines():
        partition, key, value = line.split(":")
        producer.produce(topic, value, key, int(partition), on_delivery=fail)
    producer.flush(30)


def text(value):
    return "null" if value is None else value.decode()


def consumer(isolation, group, shows_ends):
    return Consumer(
        base
        | {
            "group.id": group,
            "isolation.level": isolation,
            "enable.auto.commit": False,
            "enable.partition.eof": shows_ends,
            "auto.offset.reset": "earliest",
        }
    )


def message(reader):
    found = reader.poll(60)
    if found is None:
        sys.exit("nothing came for a minute")
    return found


if command == "create":
    admin = AdminClient(base)
    admin.create_topics([NewTopic(topic, int(rest[0]), -1)])[topic].result(30)
elif command == "produce":
    send(Producer(base | {"enable.idempotence": True}))
elif command == "transact":
    producer = Producer(base | {"transactional.id": rest[0]})
    producer.init_transactions(30)
    producer.begin_transaction()
    send(producer)
    producer.commit_transaction(30) if rest[1] == "commit" else producer.abort_transaction(30)
elif command == "read":
    reader = consumer(rest[0], "a-reader-without-a-group", True)
    left = set(reader.list_topics(topic, 30).topics[topic].partitions)
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in left])
    while left:
        found = message(reader)
        if found.error() and found.error().code() == KafkaError._PARTITION_EOF:
            left.discard(found.partition())
        elif found.error():
            sys.exit(str(found.error()))
        else:
            print(f"{found.partition()}/{found.offset()} {text(found.key())}={text(found.value())}")
    reader.close()
elif command == "group":
    reader = consumer("read_committed", rest[0], False)
    reader.subscribe([topic])
    left = int(rest[1])
    while left:
        found = message(reader)
        if found.error():
            sys.exit(str(found.error()))
        print(f"{found.partition()}/{found.offset()} {text(found.key())}={text(found.value())}")
        left -= 1
    reader.commit(asynchronous=False)
    reader.close()
else:
    sys.exit(f"no such command: {command}")
