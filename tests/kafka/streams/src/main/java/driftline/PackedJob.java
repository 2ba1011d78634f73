package driftline;

import java.util.ArrayList;
import java.util.List;
import java.util.NavigableMap;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * The job on the stored records, by a processor written for them: histograms are counted in the very bytes that
 * the store holds, one look-up per frame, and a window goes out when event time has passed it by the grace.
 */
final class PackedJob {
    private static final String STORE = "open";

    private PackedJob() {
    }

    static Topology topology(Job job) {
        StoreBuilder<KeyValueStore<String, byte[]>> store = Stores.keyValueStoreBuilder(
                job.rocksdb ? Stores.persistentKeyValueStore(STORE) : Stores.inMemoryKeyValueStore(STORE),
                Serdes.String(), Serdes.ByteArray()).withCachingEnabled();
        Topology topology = new Topology();
        topology.addSource("in", Serdes.ByteArray().deserializer(), Serdes.ByteArray().deserializer(), job.input);
        topology.addProcessor("count", () -> new Aggregator(job), "in");
        topology.addStateStore(store, "count");
        topology.addSink("out", job.output, Serdes.String().serializer(), Serdes.ByteArray().serializer(), "count");
        return topology;
    }

    private static final class Aggregator implements Processor<byte[], byte[], String, byte[]> {
        private final Job job;
        private final Packed record = new Packed();
        /** Keys of the windows that are open, by their end. */
        private final NavigableMap<Long, Set<String>> open = new TreeMap<>();
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, byte[]> store;
        private long reached = Long.MIN_VALUE;

        private Aggregator(Job job) {
            this.job = job;
        }

        @Override
        public void init(ProcessorContext<String, byte[]> context) {
            this.context = context;
            store = context.getStateStore(STORE);
            try (KeyValueIterator<String, byte[]> all = store.all()) {
                while (all.hasNext()) {
                    String key = all.next().key;
                    long window = Long.parseLong(key.substring(0, key.indexOf('|')));
                    open.computeIfAbsent(window + Job.WINDOW_US, at -> new TreeSet<>()).add(key);
                }
            }
        }

        @Override
        public void process(Record<byte[], byte[]> in) {
            record.read(in.value());
            for (int frame = 0; frame < record.frames; frame++) {
                int from = record.first[frame];
                int end = from + record.count[frame];
                while (from < end) {
                    long window = Math.floorDiv(record.time(from), Job.WINDOW_US) * Job.WINDOW_US;
                    int to = from;
                    while (to < end && record.time(to) >= window && record.time(to) < window + Job.WINDOW_US) {
                        reached = Math.max(reached, record.time(to));
                        to++;
                    }
                    String key = window + "|" + record.cohort[frame];
                    byte[] counts = store.get(key);
                    if (counts == null) {
                        counts = new byte[Counts.BYTES];
                        open.computeIfAbsent(window + Job.WINDOW_US, at -> new TreeSet<>()).add(key);
                    }
                    Counts.add(counts, record, from, to);
                    store.put(key, counts);
                    from = to;
                }
            }
            sendOut();
            job.processed(record.rows);
        }

        private void sendOut() {
            while (!open.isEmpty() && open.firstKey() + Job.GRACE_US <= reached) {
                List<KeyValue<String, byte[]>> done = new ArrayList<>();
                long end = open.firstKey();
                for (String key : open.remove(end)) {
                    done.add(KeyValue.pair(key, store.delete(key)));
                }
                for (KeyValue<String, byte[]> window : done) {
                    context.forward(new Record<>(window.key, window.value, end / 1_000));
                    job.closed(Counts.rows(window.value));
                }
            }
        }
    }
}
