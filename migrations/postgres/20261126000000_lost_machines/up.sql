-- Whether a machine is lost says nothing of whether it shall get work: `state` is the operator's will, `lost_since` a fact.
ALTER TABLE machines ADD COLUMN lost_since BIGINT;
UPDATE machines SET state = 'active', lost_since = seen_at WHERE state = 'lost';
