package driftline;

/** Histograms of all features as they rest in a store: a 32-bit little-endian count per feature and bin. */
final class Counts {
    static final int BYTES = 4 * Job.FEATURES * Job.BINS;
    private static final int LEAST = -8_192;
    private static final int MOST = 8_192;
    /** The bin of every value between, so that a value is binned by one look. */
    private static final byte[] BIN = bins();

    private Counts() {
    }

    private static byte[] bins() {
        byte[] bins = new byte[MOST - LEAST + 1];
        for (int value = LEAST; value <= MOST; value++) {
            int bin = 0;
            while (bin < Job.BINS - 1 && value >= Job.FIRST_EDGE + bin * Job.EDGE_STEP) {
                bin++;
            }
            bins[value - LEAST] = (byte) bin;
        }
        return bins;
    }

    static void add(byte[] counts, int feature, int value) {
        int bin = BIN[Math.min(Math.max(value, LEAST), MOST) - LEAST];
        int at = 4 * (feature * Job.BINS + bin);
        Packed.INT.set(counts, at, (int) Packed.INT.get(counts, at) + 1);
    }

    /** Adds rows of a record that share cohort and window. */
    static void add(byte[] counts, Packed record, int from, int to) {
        byte[] body = record.body;
        for (int feature = 0; feature < Job.FEATURES; feature++) {
            int base = 4 * feature * Job.BINS;
            int end = record.features[feature] + 4 * to;
            for (int at = record.features[feature] + 4 * from; at < end; at += 4) {
                int value = (int) Packed.INT.get(body, at);
                int slot = base + 4 * BIN[Math.min(Math.max(value, LEAST), MOST) - LEAST];
                Packed.INT.set(counts, slot, (int) Packed.INT.get(counts, slot) + 1);
            }
        }
    }

    /** Rows that were counted. */
    static long rows(byte[] counts) {
        long rows = 0;
        for (int bin = 0; bin < Job.BINS; bin++) {
            rows += (int) Packed.INT.get(counts, 4 * bin);
        }
        return rows;
    }
}
