-- Audit events are added and read, by no statement changed or removed. SQLite's form; other databases have triggers of another.
CREATE TRIGGER IF NOT EXISTS audit_is_not_changed BEFORE UPDATE ON audit BEGIN
    SELECT RAISE(ABORT, 'audit events are not changed');
END;
CREATE TRIGGER IF NOT EXISTS audit_is_not_removed BEFORE DELETE ON audit BEGIN
    SELECT RAISE(ABORT, 'audit events are not removed');
END;
-- INSERT OR REPLACE removes without the trigger above.
CREATE TRIGGER IF NOT EXISTS audit_is_not_replaced BEFORE INSERT ON audit
WHEN EXISTS (SELECT 1 FROM audit WHERE n = NEW.n OR id = NEW.id) BEGIN
    SELECT RAISE(ABORT, 'audit events are not replaced');
END;
