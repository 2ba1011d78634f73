package driftline;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.processor.TimestampExtractor;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowBytesStoreSupplier;
import org.apache.kafka.streams.state.WindowStore;

/** The job as one writes it first: a JSON document a row, grouped, windowed, aggregated, final windows only. */
final class RowsJob {
    private static final Duration WINDOW = Duration.ofMillis(Job.WINDOW_US / 1_000);
    private static final Duration GRACE = Duration.ofMillis(Job.GRACE_US / 1_000);
    private static final Duration RETENTION = WINDOW.plus(GRACE);

    private RowsJob() {
    }

    /** What is read of a row. */
    static final class Row {
        long time;
        final int[] values = new int[Job.FEATURES];
    }

    private static final class RowSerde implements Deserializer<Row> {
        private final JsonFactory factory = new JsonFactory();

        @Override
        public Row deserialize(String topic, byte[] data) {
            Row row = new Row();
            try (JsonParser parser = factory.createParser(data)) {
                parser.nextToken();
                while (parser.nextToken() == JsonToken.FIELD_NAME) {
                    String name = parser.currentName();
                    parser.nextToken();
                    if (name.charAt(0) == 'f' && name.length() <= 3) {
                        // Hundredths, as the stored records have them.
                        row.values[Integer.parseInt(name, 1, name.length(), 10)] =
                                (int) Math.rint(parser.getDoubleValue() * 100);
                    } else if (name.equals("event_time")) {
                        row.time = parser.getLongValue();
                    }
                }
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
            return row;
        }
    }

    private static final class EventTime implements TimestampExtractor {
        @Override
        public long extract(ConsumerRecord<Object, Object> record, long partitionTime) {
            return ((Row) record.value()).time / 1_000;
        }
    }

    static Topology topology(Job job) {
        Serde<Row> rows = Serdes.serdeFrom((Serializer<Row>) (topic, row) -> null, new RowSerde());
        StreamsBuilder builder = new StreamsBuilder();
        Materialized<String, byte[], WindowStore<Bytes, byte[]>> store;
        if (job.rocksdb) {
            store = Materialized.<String, byte[], WindowStore<Bytes, byte[]>>as("open");
            if (job.tuned) {
                store = store.withRetention(RETENTION);
            }
        } else {
            WindowBytesStoreSupplier memory = Stores.inMemoryWindowStore("open", RETENTION, WINDOW, false);
            store = Materialized.as(memory);
        }
        builder.stream(job.input, Consumed.with(Serdes.String(), rows).withTimestampExtractor(new EventTime()))
                .peek((key, row) -> job.processed(1))
                .groupByKey(Grouped.with(Serdes.String(), rows))
                .windowedBy(TimeWindows.ofSizeAndGrace(WINDOW, GRACE))
                .aggregate(() -> new byte[Counts.BYTES], (key, row, counts) -> {
                    for (int feature = 0; feature < Job.FEATURES; feature++) {
                        Counts.add(counts, feature, row.values[feature]);
                    }
                    return counts;
                }, store.withKeySerde(Serdes.String()).withValueSerde(Serdes.ByteArray()))
                .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
                .toStream((window, counts) -> window.window().start() + "|" + window.key())
                .peek((key, counts) -> job.closed(Counts.rows(counts)))
                .to(job.output, Produced.with(Serdes.String(), Serdes.ByteArray()));
        return builder.build();
    }
}
