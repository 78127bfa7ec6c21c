"""PostgreSQL as definitions use it: connections, statements, values, transactions, notices."""
