package driftline;

import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;

/**
 * One-minute windowed histograms of 16 features per cohort, final windows to a topic, exactly once: the job that
 * tests/kafka/speed.py holds Driftline's profile stage against. Prints one JSON document a line.
 *
 * <p>Arguments are {@code name=value}: {@code do} is {@code read} (a bare consumer that decodes and counts),
 * {@code json} (stored records to JSON rows), {@code packed} or {@code rows} (the job); {@code brokers},
 * {@code input}, {@code output}, {@code total} (rows of the input), {@code threads}, {@code store}
 * ({@code rocksdb} or {@code memory}), {@code tuned}, {@code folder} (of state).
 */
public final class Job {
    static final int FEATURES = 16;
    /** 65 edges, as the bundle of processors/benches/rows has them. */
    static final int BINS = 66;
    static final int FIRST_EDGE = 400;
    static final int EDGE_STEP = 50;
    static final long WINDOW_US = 60_000_000;
    static final long GRACE_US = 5_000_000;

    final String brokers;
    final String input;
    final String output;
    final long total;
    final int threads;
    final boolean rocksdb;
    final boolean tuned;
    private final String folder;
    private final AtomicLong rows = new AtomicLong();
    private final AtomicLong windows = new AtomicLong();
    private final AtomicLong rowsClosed = new AtomicLong();
    private volatile long firstAt;
    private volatile long halfAt;
    private volatile long lastAt;
    private volatile long halfCpu;
    private volatile long lastCpu;

    private Job(Map<String, String> arguments) {
        brokers = arguments.get("brokers");
        input = arguments.get("input");
        output = arguments.get("output");
        total = Long.parseLong(arguments.getOrDefault("total", "0"));
        threads = Integer.parseInt(arguments.getOrDefault("threads", "1"));
        rocksdb = arguments.getOrDefault("store", "rocksdb").equals("rocksdb");
        tuned = arguments.getOrDefault("tuned", "no").equals("yes");
        folder = arguments.getOrDefault("folder", ".");
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> named = new HashMap<>();
        for (String argument : arguments) {
            int at = argument.indexOf('=');
            named.put(argument.substring(0, at), argument.substring(at + 1));
        }
        Job job = new Job(named);
        if (job.output != null) {
            job.create();
        }
        switch (named.get("do")) {
            case "read" -> job.read();
            case "json" -> job.json();
            case "packed" -> job.stream(PackedJob.topology(job));
            case "rows" -> job.stream(RowsJob.topology(job));
            default -> throw new IllegalArgumentException("do=read, json, packed or rows");
        }
    }

    /** Makes the output's topic, with as many partitions as the input has. */
    private void create() throws Exception {
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
            int partitions = admin.describeTopics(List.of(input)).allTopicNames().get().get(input).partitions().size();
            // Event times are of the past.
            NewTopic topic = new NewTopic(output, partitions, (short) 1).configs(Map.of("retention.ms", "-1"));
            admin.createTopics(List.of(topic)).all().get();
        }
    }

    /** Rows that were worked off. */
    void processed(int more) {
        long before = rows.getAndAdd(more);
        if (before == 0) {
            firstAt = System.nanoTime();
        }
        if (before < total / 2 && before + more >= total / 2) {
            halfCpu = cpu();
            halfAt = System.nanoTime();
        }
        if (before + more >= total) {
            lastCpu = cpu();
            lastAt = System.nanoTime();
        }
    }

    /** CPU time of this process, nanoseconds. */
    private static long cpu() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    /** A window went out with so many rows. */
    void closed(long more) {
        windows.incrementAndGet();
        rowsClosed.addAndGet(more);
    }

    private void stream(Topology topology) throws InterruptedException {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, output);
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, threads);
        settings.put(StreamsConfig.STATE_DIR_CONFIG, Path.of(folder, "state").toString());
        settings.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG,
                "org.apache.kafka.common.serialization.Serdes$ByteArraySerde");
        settings.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG,
                "org.apache.kafka.common.serialization.Serdes$ByteArraySerde");
        settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        settings.put(StreamsConfig.topicPrefix("retention.ms"), "-1");
        if (tuned) {
            settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1_000);
            settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 256L << 20);
            settings.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
            settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 5_000);
            settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 8 << 20);
            settings.put(StreamsConfig.consumerPrefix(ConsumerConfig.FETCH_MIN_BYTES_CONFIG), 1 << 20);
            settings.put(StreamsConfig.producerPrefix(ProducerConfig.LINGER_MS_CONFIG), 100);
            settings.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        }
        KafkaStreams streams = new KafkaStreams(topology, settings);
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            System.exit(1);
            return null;
        });
        streams.start();
        while (lastAt == 0) {
            Thread.sleep(20);
        }
        streams.close(Duration.ofSeconds(60));
        tell();
    }

    /** The second half is the JVM when it is warm; its CPU time counts twice for the whole. */
    private void tell() {
        double all = (lastAt - firstAt) / 1e9;
        double half = (lastAt - halfAt) / 1e9;
        System.out.printf("{\"rows\": %d, \"seconds\": %.3f, \"rate\": %.0f, \"rate_of_second_half\": %.0f, "
                        + "\"cpu_s\": %.2f, \"windows\": %d, \"rows_in_windows\": %d}%n",
                rows.get(), all, rows.get() / all, rows.get() / 2 / half, (lastCpu - halfCpu) / 5e8, windows.get(), rowsClosed.get());
    }

    private KafkaConsumer<byte[], byte[]> consumer() {
        Properties settings = new Properties();
        settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        settings.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 5_000);
        settings.put(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG, 8 << 20);
        KafkaConsumer<byte[], byte[]> consumer =
                new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
        List<TopicPartition> partitions = new ArrayList<>();
        consumer.partitionsFor(input).forEach(it -> partitions.add(new TopicPartition(input, it.partition())));
        consumer.assign(partitions);
        consumer.seekToBeginning(partitions);
        return consumer;
    }

    private void read() {
        byte[] counts = new byte[Counts.BYTES];
        Packed record = new Packed();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer()) {
            while (lastAt == 0) {
                for (ConsumerRecord<byte[], byte[]> next : consumer.poll(Duration.ofMillis(100))) {
                    record.read(next.value());
                    Counts.add(counts, record, 0, record.rows);
                    processed(record.rows);
                }
            }
        }
        tell();
    }

    /** Writes the first rows of the stored records as JSON documents, keyed by cohort, partition by partition. */
    private void json() {
        Map<String, Object> settings = new HashMap<>();
        settings.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        settings.put(ProducerConfig.LINGER_MS_CONFIG, 20);
        settings.put(ProducerConfig.BATCH_SIZE_CONFIG, 512 << 10);
        settings.put(ProducerConfig.BUFFER_MEMORY_CONFIG, 64L << 20);
        Packed record = new Packed();
        StringBuilder text = new StringBuilder();
        int partitions;
        Map<Integer, Long> written = new HashMap<>();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer();
                KafkaProducer<byte[], byte[]> producer =
                        new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer())) {
            partitions = consumer.assignment().size();
            while (rows.get() < total) {
                for (ConsumerRecord<byte[], byte[]> next : consumer.poll(Duration.ofMillis(100))) {
                    // The same number of each partition, so that both have the same span of event time.
                    long mine = written.getOrDefault(next.partition(), 0L);
                    if (mine >= total / partitions) {
                        consumer.pause(Collections.singleton(new TopicPartition(input, next.partition())));
                        continue;
                    }
                    record.read(next.value());
                    for (int frame = 0; frame < record.frames; frame++) {
                        for (int at = 0; at < record.count[frame]; at++) {
                            row(text, record, frame, record.first[frame] + at);
                            producer.send(new ProducerRecord<>(output, next.partition(),
                                    record.time(record.first[frame] + at) / 1_000,
                                    record.cohort[frame].getBytes(StandardCharsets.UTF_8),
                                    text.toString().getBytes(StandardCharsets.UTF_8)));
                        }
                    }
                    written.put(next.partition(), mine + record.rows);
                    processed(record.rows);
                }
            }
        }
        tell();
    }

    private static void row(StringBuilder text, Packed record, int frame, int at) {
        text.setLength(0);
        text.append("{\"cohort\":\"").append(record.cohort[frame]).append("\",\"event_time\":").append(record.time(at));
        for (int feature = 0; feature < FEATURES; feature++) {
            int value = record.value(feature, at);
            text.append(",\"f").append(feature).append("\":").append(value / 100).append('.');
            if (value % 100 < 10) {
                text.append('0');
            }
            text.append(value % 100);
        }
        text.append('}');
    }
}
