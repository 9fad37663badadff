DROP INDEX messages_by_subject;
