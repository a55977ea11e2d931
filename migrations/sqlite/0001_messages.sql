-- A room and the newest of its messages. The number stands for the name in the messages' key.
CREATE TABLE rooms (
    id        INTEGER PRIMARY KEY,
    name      TEXT    NOT NULL UNIQUE,
    head      INTEGER NOT NULL,
    newest_ms INTEGER NOT NULL
) STRICT;

-- Clustered by room and seq, so that a page is one range of the table at any depth.
CREATE TABLE messages (
    room          INTEGER NOT NULL REFERENCES rooms (id),
    seq           INTEGER NOT NULL,
    id            BLOB    NOT NULL,
    sender        TEXT    NOT NULL,
    content       TEXT    NOT NULL,
    wall_ms       INTEGER NOT NULL,
    client_msg_id TEXT,
    PRIMARY KEY (room, seq)
) STRICT, WITHOUT ROWID;

-- A resend is known again, however late it comes.
CREATE UNIQUE INDEX messages_client_msg_id ON messages (room, sender, client_msg_id)
    WHERE client_msg_id IS NOT NULL;
