ALTER TABLE pools DROP COLUMN collateral_sectors;
DROP TABLE promise_lessons;

DROP TABLE promises;

DROP INDEX tasks_by_kind;

ALTER TABLE tasks DROP COLUMN started_at;
