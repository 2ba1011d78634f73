package driftline;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import net.jpountz.lz4.LZ4Factory;
import net.jpountz.lz4.LZ4FastDecompressor;

/**
 * Reads Driftline's stored records (schemas/src/packed.rs says the bytes): the heads of their frames, and the
 * columns of the Arrow batch where they lie. It checks neither the checksum nor what it is told of lengths, and
 * takes every column to be of fixed width: as little work as a reader can do with these bytes.
 */
final class Packed {
    static final VarHandle INT = MethodHandles.byteArrayViewVarHandle(int[].class, ByteOrder.LITTLE_ENDIAN);
    static final VarHandle LONG = MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);
    static final VarHandle SHORT = MethodHandles.byteArrayViewVarHandle(short[].class, ByteOrder.LITTLE_ENDIAN);
    private static final int HEAD_BYTES = 16;
    /** Before a feature's column: frame, row and event time. */
    private static final int LEADING = 3;

    private final LZ4FastDecompressor lz4 = LZ4Factory.fastestInstance().fastDecompressor();
    private final Map<Slice, String> cohorts = new HashMap<>();
    private final Slice probe = new Slice();
    private byte[] room = new byte[1 << 18];
    private String[] origins = new String[16];

    /** The body, decompressed. */
    byte[] body;
    int rows;
    int frames;
    /** Of each frame: its cohort, its first row, and its rows. */
    String[] cohort = new String[16];
    int[] first = new int[16];
    int[] count = new int[16];
    /** Where in the body the event times, and the values of each feature, begin. */
    int times;
    final int[] features = new int[Job.FEATURES];
    private int at;

    /** A part of some bytes, to be looked up. */
    private static final class Slice {
        private byte[] bytes;
        private int from;
        private int to;

        @Override
        public int hashCode() {
            int hash = 1;
            for (int i = from; i < to; i++) {
                hash = 31 * hash + bytes[i];
            }
            return hash;
        }

        @Override
        public boolean equals(Object other) {
            return other instanceof Slice it && Arrays.equals(bytes, from, to, it.bytes, it.from, it.to);
        }
    }

    void read(byte[] record) {
        body = record;
        at = HEAD_BYTES;
        if ((record[5] & 1) != 0) {
            int length = (int) INT.get(record, 12);
            if (room.length < length) {
                room = new byte[length];
            }
            lz4.decompress(record, HEAD_BYTES, room, 0, length);
            body = room;
            at = 0;
        }
        int start = at;
        int heads = (int) INT.get(body, at);
        at += 4;
        heads();
        int payload = start + (4 + heads + 63) / 64 * 64;
        batch(payload);
    }

    private void heads() {
        skipText();
        skipText();
        skipText();
        at += 5;
        int known = (int) varint();
        if (origins.length < known) {
            origins = new String[known];
        }
        for (int i = 0; i < known; i++) {
            origins[i] = origin();
        }
        frames = (int) varint();
        if (cohort.length < frames) {
            cohort = new String[frames];
            first = new int[frames];
            count = new int[frames];
        }
        int row = 0;
        for (int i = 0; i < frames; i++) {
            cohort[i] = origins[(int) varint()];
            at += 8;
            varint();
            if (body[at++] != 0) {
                varint();
            }
            varint();
            varint();
            first[i] = row;
            count[i] = (int) varint();
            row += count[i];
        }
        rows = row;
    }

    /** The cohort of an origin: its firmware, region (always empty here) and site, which stand together. */
    private String origin() {
        skipText();
        at++;
        skipText();
        skipText();
        skipText();
        skipText();
        probe.bytes = body;
        probe.from = at;
        String firmware = null;
        int firmwareAt = at;
        skipText();
        skipText();
        int siteAt = at;
        skipText();
        probe.to = at;
        at++;
        varint();
        String found = cohorts.get(probe);
        if (found == null) {
            int end = at;
            at = firmwareAt;
            firmware = text();
            at = siteAt;
            found = text() + "|" + firmware;
            at = end;
            Slice kept = new Slice();
            kept.bytes = Arrays.copyOfRange(body, probe.from, probe.to);
            kept.to = kept.bytes.length;
            cohorts.put(kept, found);
        }
        return found;
    }

    /** Finds the columns of the one batch in an Arrow stream: a schema, which is known, and a batch. */
    private void batch(int stream) {
        int metadata = stream + 8;
        int after = metadata + (int) INT.get(body, stream + 4);
        // The schema's message has no body.
        metadata = after + 8;
        int data = metadata + (int) INT.get(body, after + 4);
        int message = metadata + (int) INT.get(body, metadata);
        int header = field(message, 2);
        int batch = header + (int) INT.get(body, header);
        int vector = field(batch, 2);
        int buffers = vector + (int) INT.get(body, vector) + 4;
        times = data + (int) (long) LONG.get(body, buffers + 16 * (2 * (LEADING - 1) + 1));
        for (int i = 0; i < Job.FEATURES; i++) {
            features[i] = data + (int) (long) LONG.get(body, buffers + 16 * (2 * (LEADING + i) + 1));
        }
    }

    /** Where a field of a flatbuffer's table is. */
    private int field(int table, int number) {
        int vtable = table - (int) INT.get(body, table);
        return table + (short) SHORT.get(body, vtable + 4 + 2 * number);
    }

    long time(int row) {
        return (long) LONG.get(body, times + 8 * row);
    }

    int value(int feature, int row) {
        return (int) INT.get(body, features[feature] + 4 * row);
    }

    private long varint() {
        long value = 0;
        for (int shift = 0; ; shift += 7) {
            byte next = body[at++];
            value |= (long) (next & 0x7f) << shift;
            if (next >= 0) {
                return value;
            }
        }
    }

    private void skipText() {
        int length = (int) varint();
        at += length;
    }

    private String text() {
        int length = (int) varint();
        at += length;
        return new String(body, at - length, length, StandardCharsets.UTF_8);
    }
}
