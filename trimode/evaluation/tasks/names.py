"""First names and surnames, as data."""

from trimode.evaluation.tasks.words import listed

FIRST_NAMES: tuple[str, ...] = listed(
    """
    Aaron Ada Adam Agnes Alan Albert Alice Alma Amir Amy Ana Andre Anna Anton Arjun Arthur Astrid Aya
    Ben Bella Bernd Bianca Boris Brian Bruno Carl Carla Carmen Cecil Chen Chloe Clara Colin Cora Dana
    Daniel Daria David Diana Diego Dora Edgar Edith Elena Eli Elias Ella Elsa Emil Emma Enzo Eric Erika
    Esther Eva Farah Felix Fiona Flora Frank Frida Gabriel George Gina Grace Greta Gustav Hana Hanna
    Hans Harold Hassan Heidi Helen Henry Hugo Ian Ida Igor Ines Ingrid Irene Iris Isaac Ivan Jack Jakob
    James Jan Jana Jasmin Jean Joan John Jonas Jorge Jose Julia Jun Kai Karen Karim Karl Kate Kenji Kira
    Klara Lara Lars Laura Lea Leila Lena Leo Liam Lina Linda Lisa Louis Lucia Luis Luke Magda Maja Marco
    Maria Mark Marta Max Maya Mei Mia Mila Mona Nadia Naomi Nils Nina Noah Nora Olaf Olga Omar Oscar
    Otto Paul Paula Pedro Petra Priya Rafael Ravi Rita Rosa Ruth Sam Sara Sofia Sven Tara Theo Tina Tom
    Uma Vera Victor Wanda Yara Yuki Yusuf Zoe
    """
)

SURNAMES: tuple[str, ...] = listed(
    """
    Abbott Adler Ahmed Albers Allen Alvarez Andersen Arnold Bailey Baker Barnes Bauer Becker Bell Berg
    Bishop Blanc Bloom Bond Braun Brooks Brown Burke Byrne Carter Castro Chan Chavez Chen Clark Cohen
    Cole Conti Cook Cooper Costa Cruz Dahl Davis Diaz Dixon Dubois Duncan Eder Ellis Engel Evans Farmer
    Fischer Fisher Flores Ford Foster Fox Frank Fuchs Garcia Gibson Gomez Gordon Graham Grant Gray Green
    Gupta Haas Hahn Hall Hansen Harris Hart Hayes Heller Herrera Hill Hoffman Holm Horn Howard Huber
    Hughes Hunt Ito Ivanov Jackson Jensen Jones Kaiser Kaplan Keller Kelly Khan Kim King Klein Koch
    Kowalski Kumar Lang Larsen Lee Lehmann Lewis Lin Lopez Lorenz Lund Maier Marino Martin Mason Mendez
    Meyer Miller Moore Morales Moreau Morgan Moser Murphy Nakamura Nash Nelson Neumann Nguyen Novak
    Olsen Ortega Owens Palmer Park Patel Perez Peters Petrov Porter Price Quinn Ramos Reed Reyes Richter
    Rivera Rossi Roth Russo Santos Sato Schmidt Schulz Scott Shah Sharma Silva Singh Smith Stein Stone
    Suzuki Tanaka Taylor Torres Turner Vogel Wagner Walker Wang Ward Weber West White Wolf Wong Wright
    Young
    """
)
