import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;

/** Counts and sums sales by account on Kafka Streams: exactly once, each update written. The input has the accounts as keys. */
public class Streams {
    record Total(long count, long sum) {}

    /** Arguments: brokers, input, output, milliseconds between commits, threads, folder of the state. */
    public static void main(String[] arguments) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", arguments[0]);
        properties.put("application.id", arguments[2]);
        properties.put("processing.guarantee", "exactly_once_v2");
        properties.put("commit.interval.ms", arguments[3]);
        properties.put("num.stream.threads", arguments[4]);
        properties.put("state.dir", arguments[5]);
        properties.put("statestore.cache.max.bytes", "0");
        properties.put("auto.offset.reset", "earliest");
        // One broker holds all.
        properties.put("replication.factor", "1");
        Serde<Total> totals = Serdes.serdeFrom(
                (topic, total) -> total == null ? null : ByteBuffer.allocate(16).putLong(total.count).putLong(total.sum).array(),
                (topic, bytes) -> {
                    if (bytes == null) return null;
                    ByteBuffer buffer = ByteBuffer.wrap(bytes);
                    return new Total(buffer.getLong(), buffer.getLong());
                });
        StreamsBuilder builder = new StreamsBuilder();
        builder.stream(arguments[1], Consumed.with(Serdes.String(), Serdes.ByteArray()))
                .groupByKey()
                .aggregate(
                        () -> new Total(0, 0),
                        (account, value, total) -> new Total(total.count() + 1, total.sum() + Sale.parse(value).amount),
                        Materialized.with(Serdes.String(), totals))
                .toStream()
                .map((account, total) -> new KeyValue<>(Sale.key(account), Sale.value(total.count(), total.sum())))
                .to(arguments[2], Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));
        KafkaStreams streams = new KafkaStreams(builder.build(), properties);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }
}
