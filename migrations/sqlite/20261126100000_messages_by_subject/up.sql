CREATE INDEX messages_by_subject ON messages (purpose, subject_id);
