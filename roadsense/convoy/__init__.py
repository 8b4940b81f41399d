"""The environment: a Gymnasium shell around rules that are functions of arrays with axes [world, car]."""
