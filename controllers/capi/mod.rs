//! Cluster API as we read it: projections of Cluster and Machine, ownership, pause.
