-- A room and the newest of its messages. The number stands for the name in the messages' key.
-- Names are compared byte for byte, whatever the database's collation. The free space in each page
-- lets the head, which every batch changes, be updated in place.
CREATE TABLE rooms (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name      text   COLLATE "C" NOT NULL UNIQUE,
    head      bigint NOT NULL,
    newest_ms bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE messages (
    room          bigint NOT NULL,
    seq           bigint NOT NULL,
    id            uuid   NOT NULL,
    sender        text   COLLATE "C" NOT NULL,
    content       text   COLLATE "C" NOT NULL,
    wall_ms       bigint NOT NULL,
    client_msg_id text   COLLATE "C",
    PRIMARY KEY (room, seq)
);

-- A resend is known again, however late it comes and to whichever host.
CREATE UNIQUE INDEX messages_client_msg_id ON messages (room, sender, client_msg_id)
    WHERE client_msg_id IS NOT NULL;

-- Stores a batch in one statement, so that a host that stops in the middle leaves no lock behind.
--
-- `names` are the batch's rooms, each once and in byte order: every host locks in that one order, so
-- that no two can wait for each other. `room_of` says which of them each message goes to, from 1.
-- Each statement of a volatile function takes a snapshot of its own: what a host before us committed
-- is seen once its lock is ours, which one statement for all of it would not do.
--
-- Answers one row for each message, at its place in the batch: the number and time that it got, or
-- those of the message that the sender stored before under the same key, with its id and content.
-- A row with a negative place says how many milliseconds the lock of that room was waited for.
CREATE FUNCTION append_messages_1(
    names text[], room_of integer[], ids uuid[], senders text[], contents text[], times bigint[],
    keys text[]
) RETURNS TABLE (place bigint, number bigint, at_ms bigint, known_id uuid, known_content text)
LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    room     rooms%ROWTYPE;
    room_ids bigint[] := '{}';
    heads    bigint[] := '{}';
    newest   bigint[] := '{}';
    begun    timestamptz;
    waited   bigint;
BEGIN
    FOR nth IN 1 .. cardinality(names) LOOP
        begun := clock_timestamp();
        SELECT * INTO room FROM rooms WHERE name = names[nth] FOR UPDATE;
        IF NOT FOUND THEN
            INSERT INTO rooms (name, head, newest_ms) VALUES (names[nth], 0, 0)
                ON CONFLICT (name) DO NOTHING;
            SELECT * INTO STRICT room FROM rooms WHERE name = names[nth] FOR UPDATE;
        END IF;
        room_ids := room_ids || room.id;
        heads := heads || room.head;
        newest := newest || room.newest_ms;
        waited := extract(epoch FROM clock_timestamp() - begun) * 1000;
        IF waited > 20 THEN
            place := -nth;
            number := waited;
            RETURN NEXT;
        END IF;
    END LOOP;

    RETURN QUERY
    WITH input AS (
        SELECT t.nth, room_ids[t.room_of] AS room, heads[t.room_of] AS head,
               newest[t.room_of] AS newest_ms, t.id, t.sender, t.content, t.wall_ms, t.key
        FROM unnest(room_of, ids, senders, contents, times, keys)
             WITH ORDINALITY AS t (room_of, id, sender, content, wall_ms, key, nth)
    ), looked_up AS (
        SELECT input.*, known.seq AS known_seq, known.wall_ms AS known_ms, known.id AS first_id,
               known.content AS first_content
        FROM input LEFT JOIN LATERAL (
            SELECT m.seq, m.wall_ms, m.id, m.content FROM messages AS m
            WHERE m.room = input.room AND m.sender = input.sender AND m.client_msg_id = input.key
            LIMIT 1
        ) AS known ON true
    ), fresh AS (
        SELECT l.nth, l.room, l.head + row_number() OVER earlier AS seq, l.id, l.sender, l.content,
               greatest(l.newest_ms, max(l.wall_ms) OVER earlier) AS wall_ms, l.key
        FROM looked_up AS l WHERE l.known_seq IS NULL
        WINDOW earlier AS (PARTITION BY l.room ORDER BY l.nth)
    ), stored AS (
        INSERT INTO messages (room, seq, id, sender, content, wall_ms, client_msg_id)
        SELECT f.room, f.seq, f.id, f.sender, f.content, f.wall_ms, f.key FROM fresh AS f
    ), grown AS (
        UPDATE rooms SET head = last.seq, newest_ms = last.wall_ms
        FROM (SELECT f.room, max(f.seq) AS seq, max(f.wall_ms) AS wall_ms FROM fresh AS f
              GROUP BY f.room) AS last
        WHERE rooms.id = last.room
    )
    SELECT f.nth, f.seq, f.wall_ms, NULL::uuid, NULL::text FROM fresh AS f
    UNION ALL
    SELECT l.nth, l.known_seq, l.known_ms, l.first_id, l.first_content FROM looked_up AS l
    WHERE l.known_seq IS NOT NULL;
END $$;
