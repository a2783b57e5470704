import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.configuration.StateBackendOptions;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/** Counts and sums sales by account on Apache Flink: state on the heap, which is its fastest, exactly once, objects reused. */
public class Flink {
    public static class Total {
        public String account;
        public long count;
        public long sum;
    }

    public static class Read implements KafkaRecordDeserializationSchema<Sale> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Sale> out) {
            out.collect(Sale.parse(record.value()));
        }

        @Override
        public TypeInformation<Sale> getProducedType() {
            return Types.POJO(Sale.class);
        }
    }

    public static class Write implements KafkaRecordSerializationSchema<Total> {
        private final String topic;

        public Write(String topic) {
            this.topic = topic;
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(Total total, KafkaSinkContext context, Long timestamp) {
            return new ProducerRecord<>(topic, Sale.key(total.account), Sale.value(total.count, total.sum));
        }
    }

    public static class CountAndSum extends KeyedProcessFunction<String, Sale, Total> {
        private transient ValueState<Total> state;

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("totals", Types.POJO(Total.class)));
        }

        @Override
        public void processElement(Sale sale, Context context, Collector<Total> out) throws Exception {
            Total total = state.value();
            if (total == null) {
                total = new Total();
                total.account = sale.account;
            }
            total.count += 1;
            total.sum += sale.amount;
            state.update(total);
            out.collect(total);
        }
    }

    /** Arguments: brokers, input, output, milliseconds between checkpoints, parallelism, folder of the checkpoints. */
    public static void main(String[] arguments) throws Exception {
        Configuration configuration = new Configuration();
        configuration.set(StateBackendOptions.STATE_BACKEND, "hashmap");
        configuration.set(CheckpointingOptions.CHECKPOINT_STORAGE, "filesystem");
        configuration.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, "file://" + arguments[5]);
        StreamExecutionEnvironment environment =
                StreamExecutionEnvironment.createLocalEnvironment(Integer.parseInt(arguments[4]), configuration);
        environment.enableCheckpointing(Long.parseLong(arguments[3]));
        environment.getConfig().enableObjectReuse();
        KafkaSource<Sale> source = KafkaSource.<Sale>builder()
                .setBootstrapServers(arguments[0])
                .setTopics(arguments[1])
                .setGroupId(arguments[2])
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setDeserializer(new Read())
                .build();
        KafkaSink<Total> sink = KafkaSink.<Total>builder()
                .setBootstrapServers(arguments[0])
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(arguments[2])
                .setProperty("transaction.timeout.ms", "600000")
                .setRecordSerializer(new Write(arguments[2]))
                .build();
        environment
                .fromSource(source, WatermarkStrategy.noWatermarks(), "sales")
                .keyBy(sale -> sale.account, Types.STRING)
                .process(new CountAndSum())
                .returns(Types.POJO(Total.class))
                .sinkTo(sink);
        environment.execute("sales");
    }
}
