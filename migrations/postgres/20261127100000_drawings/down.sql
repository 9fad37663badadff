DROP TABLE drawings;
