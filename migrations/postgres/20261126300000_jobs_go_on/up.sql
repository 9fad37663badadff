-- No job is given up any more: those that were go on.
UPDATE jobs SET state = 'ready' WHERE state = 'failed';
