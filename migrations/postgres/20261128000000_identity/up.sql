-- The random part of this database, made with its first message: two installations on one node never give two messages one identity.
CREATE TABLE installation (
    id BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
    secret TEXT NOT NULL
);

-- Which try at its purpose a message is; who sends it, under which nonce and at which fee; when a push was first tried; when the chain
-- was found to have its effect by another message.
ALTER TABLE messages ADD COLUMN attempt BIGINT NOT NULL DEFAULT 0;
UPDATE messages SET attempt = -id;
CREATE UNIQUE INDEX messages_by_attempt ON messages (purpose, subject_id, attempt);
ALTER TABLE messages ADD COLUMN sender TEXT;
ALTER TABLE messages ADD COLUMN nonce BIGINT;
ALTER TABLE messages ADD COLUMN fee_cap_atto TEXT;
ALTER TABLE messages ADD COLUMN premium_atto TEXT;
ALTER TABLE messages ADD COLUMN tried_at BIGINT;
ALTER TABLE messages ADD COLUMN adopted_at BIGINT;

-- What a person has to look at, by kind and subject, until it is over.
CREATE TABLE alerts (
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    text TEXT NOT NULL,
    since BIGINT NOT NULL,
    PRIMARY KEY (kind, subject)
);
